//! One provider, as the `openidconnect` library speaks with it.
//!
//! Invariant: the provider's own addresses alone are asked, redirects are not followed, and an ID token counts only with
//! its signature, issuer, audience, expiry and nonce.

use super::{OidcConfig, Person};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthenticationFlow, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, IdTokenFields, IssuerUrl, Nonce,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, StandardErrorResponse, StandardTokenResponse,
    TokenResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long the provider's description of itself, with its keys, is used before it is read again.
const METADATA_LIFETIME: Duration = Duration::from_secs(600);
/// How long a request to the provider may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest secret and certificate files read.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Most groups looked at.
const MAX_GROUPS: usize = 1000;

/// What went wrong with a provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("read {path}: {problem}")]
    File { path: String, problem: String },
    #[error("OpenID provider `{name}`: {act}: {problem}")]
    Failed { name: String, act: &'static str, problem: String },
}

/// Every claim beside the standard ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims(Map<String, Value>);
impl AdditionalClaims for Claims {}

type Fields = IdTokenFields<
    Claims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

type Speaking = Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

#[derive(Debug)]
pub(super) struct Provider {
    config: OidcConfig,
    secret: ClientSecret,
    http: reqwest::Client,
    metadata: Mutex<Option<(Instant, CoreProviderMetadata)>>,
}

impl Provider {
    /// # Errors
    /// The secret or the certificate cannot be read.
    pub(super) fn new(config: OidcConfig) -> Result<Self, ProviderError> {
        let secret = read(&config.client_secret_file)?;
        let failed = |problem: reqwest::Error| ProviderError::Failed {
            name: config.name.clone(),
            act: "prepare a client",
            problem: problem.to_string(),
        };
        let mut http = reqwest::Client::builder()
            // A redirect could lead further inside than the provider.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT);
        if let Some(path) = &config.ca_file {
            let certificate = reqwest::Certificate::from_pem(read(path)?.as_bytes()).map_err(failed)?;
            http = http.add_root_certificate(certificate);
        }
        let http = http.build().map_err(failed)?;
        let secret = ClientSecret::new(secret.trim().to_owned());
        Ok(Self { config, secret, http, metadata: Mutex::default() })
    }

    pub(super) fn config(&self) -> &OidcConfig {
        &self.config
    }

    /// Where to send a browser; then PKCE's verifier and the nonce that must come back.
    pub(super) async fn authorize(&self, state: &str) -> Result<(String, String, String), ProviderError> {
        let client = self.client().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = CsrfToken::new(state.to_owned());
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let scopes = self.config.scopes.iter().cloned().map(Scope::new);
        let (url, _, nonce) = client
            .authorize_url(flow, || state, Nonce::new_random)
            .add_scopes(scopes)
            .set_pkce_challenge(challenge)
            .url();
        Ok((url.to_string(), verifier.into_secret(), nonce.secret().clone()))
    }

    /// Who a code stands for.
    pub(super) async fn redeem(
        &self,
        code: String,
        verifier: String,
        nonce: String,
    ) -> Result<Person, ProviderError> {
        let client = self.client().await?;
        let request = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| self.failed("exchange the code", &error))?;
        let tokens = request
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&self.http)
            .await
            .map_err(|error| self.failed("exchange the code", &error))?;
        let token =
            tokens.id_token().ok_or_else(|| self.failed("exchange the code", &"there is no ID token"))?;
        let claims = token
            .claims(&client.id_token_verifier(), &Nonce::new(nonce))
            .map_err(|error| self.failed("check the ID token", &error))?;
        let more = &claims.additional_claims().0;
        let standard = claims.preferred_username().map(|name| name.as_str());
        let named = more.get(&self.config.name_claim).and_then(Value::as_str);
        Ok(Person {
            subject: claims.subject().as_str().to_owned(),
            name: named.or(standard).map(str::to_owned),
            groups: groups(more.get(&self.config.groups_claim)),
        })
    }

    async fn client(&self) -> Result<Speaking, ProviderError> {
        let metadata = self.metadata().await?;
        let id = ClientId::new(self.config.client_id.clone());
        let redirect = RedirectUrl::from_url(self.config.redirect.clone());
        let client: Speaking = Client::from_provider_metadata(metadata, id, Some(self.secret.clone()));
        Ok(client.set_redirect_uri(redirect))
    }

    async fn metadata(&self) -> Result<CoreProviderMetadata, ProviderError> {
        let mut kept = self.metadata.lock().await;
        if let Some((at, metadata)) = &*kept
            && at.elapsed() < METADATA_LIFETIME
        {
            return Ok(metadata.clone());
        }
        let issuer = IssuerUrl::new(self.config.issuer.clone())
            .map_err(|error| self.failed("read its address", &error))?;
        let found = CoreProviderMetadata::discover_async(issuer, &self.http).await;
        let found = found.map_err(|error| self.failed("read its description", &error))?;
        *kept = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    fn failed(&self, act: &'static str, problem: &impl ToString) -> ProviderError {
        ProviderError::Failed { name: self.config.name.clone(), act, problem: problem.to_string() }
    }
}

/// A list of texts, or one text.
fn groups(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::String(group)) => vec![group.clone()],
        Some(Value::Array(groups)) => {
            groups.iter().filter_map(Value::as_str).take(MAX_GROUPS).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn read(path: &std::path::Path) -> Result<String, ProviderError> {
    let failed = |problem: String| ProviderError::File { path: path.display().to_string(), problem };
    let bytes = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if bytes == 0 || bytes > MAX_FILE_BYTES {
        return Err(failed(format!("has {bytes} bytes, not 1 to {MAX_FILE_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))
}
