//! A pod's container as the OCI runtime is told of it: what a kubelet and containerd's CRI plugin do between a manifest
//! and runc, for the parts that Hawker's pods use.
//!
//! Invariant: the security context goes into the specification as it stands; a field that is not understood here is
//! an error, never left out.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the node adds.
pub(crate) struct Host<'n> {
    pub(crate) name: &'n str,
    pub(crate) ip: String,
    /// Its network, as a file.
    pub(crate) network: PathBuf,
    /// What is `/` of the node for `hostPath`.
    pub(crate) root: PathBuf,
    /// Where the kubelet keeps what it makes for the pod: files of ConfigMaps and Secrets, empty directories.
    pub(crate) pod_dir: PathBuf,
    /// Where the image's root is mounted.
    pub(crate) rootfs: PathBuf,
}

/// A pod to be started.
pub(crate) struct Pod<'p> {
    pub(crate) spec: &'p Value,
    /// ConfigMaps and Secrets.
    pub(crate) files: Vec<&'p Value>,
    pub(crate) host: Host<'p>,
}

impl Pod<'_> {
    /// Init containers, in order.
    pub(crate) fn init_containers(&self) -> Vec<&Value> {
        self.spec["initContainers"].as_array().into_iter().flatten().collect()
    }

    /// The one container.
    pub(crate) fn container(&self) -> Result<&Value> {
        match self.spec["containers"].as_array().map(Vec::as_slice) {
            Some([one]) => Ok(one),
            _ => bail!("a pod with another number of containers than one"),
        }
    }

    /// `base`, containerd's own specification with its default seccomp profile, made into this container's.
    pub(crate) fn runtime_spec(&self, base: &Value, container: &Value) -> Result<Value> {
        let mut spec = base.clone();
        self.process(&mut spec["process"], container)?;
        self.security(&mut spec, &container["securityContext"])?;
        let mounts = spec["mounts"].as_array_mut().context("a specification without mounts")?;
        // The CRI plugin adds the container's own view of the cgroups.
        mounts.push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            mounts.push(self.mount(mount)?);
        }
        let mut namespaces: Vec<_> =
            ["pid", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({ "type": kind })).collect();
        ensure!(self.spec["hostNetwork"] == true, "only pods in the node's network are known");
        namespaces.push(json!({ "type": "network", "path": self.host.network }));
        spec["linux"]["namespaces"] = json!(namespaces);
        Ok(spec)
    }

    fn process(&self, process: &mut Value, container: &Value) -> Result<()> {
        let words = |list: &Value| list.as_array().cloned().unwrap_or_default();
        process["args"] = json!([words(&container["command"]), words(&container["args"])].concat());
        process["cwd"] = json!("/");
        process["terminal"] = json!(false);
        let mut env = vec!["PATH=/usr/bin".to_owned()];
        for variable in words(&container["env"]) {
            let name = variable["name"].as_str().context("a variable without name")?;
            let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                None => variable["value"].as_str().with_context(|| format!("no value of {name}"))?.to_owned(),
                Some("spec.nodeName") => self.host.name.to_owned(),
                // In the node's network the pod's address is the node's.
                Some("status.podIP") => self.host.ip.clone(),
                Some(other) => bail!("{name}: {other} is not known"),
            };
            env.push(format!("{name}={value}"));
        }
        process["env"] = json!(env);
        Ok(())
    }

    fn security(&self, spec: &mut Value, context: &Value) -> Result<()> {
        let none = Map::new();
        for (field, value) in context.as_object().unwrap_or(&none) {
            match field.as_str() {
                "privileged" => ensure!(*value == false, "privileged"),
                "runAsUser" => spec["process"]["user"]["uid"] = value.clone(),
                "runAsGroup" => spec["process"]["user"]["gid"] = value.clone(),
                "allowPrivilegeEscalation" => {
                    spec["process"]["noNewPrivileges"] = json!(!value.as_bool().context("a truth value")?);
                }
                "readOnlyRootFilesystem" => {
                    spec["root"] = json!({ "path": self.host.rootfs, "readonly": value });
                }
                "capabilities" => spec["process"]["capabilities"] = capabilities(value)?,
                "seccompProfile" => match value["type"].as_str() {
                    Some("RuntimeDefault") => {
                        ensure!(spec["linux"]["seccomp"].is_object(), "no default profile");
                    }
                    Some("Localhost") => spec["linux"]["seccomp"] = self.profile(value)?,
                    other => bail!("seccomp {other:?} is not known"),
                },
                other => bail!("securityContext.{other} is not known"),
            }
        }
        Ok(())
    }

    /// A profile from the kubelet's directory, which the CRI plugin takes as the runtime's own words.
    fn profile(&self, context: &Value) -> Result<Value> {
        let name = context["localhostProfile"].as_str().context("no localhostProfile")?;
        let path = self.host.root.join("var/lib/kubelet/seccomp").join(name);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
    }

    fn mount(&self, mount: &Value) -> Result<Value> {
        let (name, at) = (mount["name"].as_str(), mount["mountPath"].as_str());
        let (name, at) = (name.context("a mount without name")?, at.context("a mount without path")?);
        let source = self.volume(name)?;
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        Ok(
            json!({ "destination": at, "type": "bind", "source": source, "options": ["rbind", "rprivate", access] }),
        )
    }

    /// Makes the volume where it is not there yet.
    fn volume(&self, name: &str) -> Result<PathBuf> {
        let volumes = self.spec["volumes"].as_array().context("a pod without volumes")?;
        let volume = volumes.iter().find(|volume| volume["name"] == name);
        let volume = volume.with_context(|| format!("no volume {name}"))?;
        let dir = self.host.pod_dir.join(name);
        let make = |dir: &Path| fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()));
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            let path = self.host.root.join(path.trim_start_matches('/'));
            ensure!(volume["hostPath"]["type"] == "DirectoryOrCreate", "{name}: only directories are known");
            make(&path)?;
            return Ok(path);
        }
        make(&dir)?;
        if let Some(map) = volume["configMap"]["name"].as_str() {
            for (file, text) in self.data("ConfigMap", map)? {
                fs::write(dir.join(file), text.as_str().unwrap_or_default())
                    .context("write a ConfigMap's file")?;
            }
        } else if let Some(secret) = volume["secret"]["secretName"].as_str() {
            self.write_secret(&dir, secret, &volume["secret"])?;
        } else {
            ensure!(volume["emptyDir"].is_object(), "{name}: a volume of a kind that is not known: {volume}");
        }
        Ok(dir)
    }

    fn data(&self, kind: &str, name: &str) -> Result<&Map<String, Value>> {
        let named = |object: &&&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        let found = self.files.iter().find(named).and_then(|object| object["data"].as_object());
        found.with_context(|| format!("no {kind} {name}"))
    }

    /// The items that the volume names, root's own as the kubelet writes them where a pod has no group.
    fn write_secret(&self, dir: &Path, name: &str, volume: &Value) -> Result<()> {
        let data = self.data("Secret", name)?;
        let mode = volume["defaultMode"].as_u64().and_then(|mode| u32::try_from(mode).ok());
        for item in volume["items"].as_array().context("a Secret's volume without items")? {
            let (key, path) =
                (item["key"].as_str().context("no key")?, item["path"].as_str().context("no path")?);
            let text =
                data.get(key).and_then(Value::as_str).with_context(|| format!("no {key} in {name}"))?;
            let file = dir.join(path);
            fs::write(&file, STANDARD.decode(text)?).context("write a Secret's file")?;
            fs::set_permissions(&file, Permissions::from_mode(mode.unwrap_or(0o644)))?;
        }
        Ok(())
    }
}

/// None but those added, in no set that would outlive an exec by another user.
fn capabilities(value: &Value) -> Result<Value> {
    ensure!(value["drop"] == json!(["ALL"]), "capabilities that are not all dropped: {value}");
    let added = value["add"].as_array().cloned().unwrap_or_default();
    let named: Vec<_> = added.iter().filter_map(Value::as_str).map(|name| format!("CAP_{name}")).collect();
    Ok(json!({ "bounding": named, "effective": named, "permitted": named, "inheritable": [], "ambient": [] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Value {
        json!({
            "process": { "user": { "uid": 7, "gid": 7 }, "noNewPrivileges": false, "capabilities": { "effective": ["CAP_CHOWN"] } },
            "root": { "path": "elsewhere" },
            "mounts": [],
            "linux": { "seccomp": { "defaultAction": "SCMP_ACT_ERRNO" }, "namespaces": [] },
        })
    }

    fn spec_of(dir: &Path, security: &Value) -> Result<Value> {
        let container = json!({
            "name": "c", "command": ["/a"], "args": ["b"], "securityContext": security,
            "env": [{ "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }],
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "readOnly": true }],
        });
        let pod = json!({
            "hostNetwork": true, "containers": [container],
            "volumes": [{ "name": "v", "hostPath": { "path": "/var/v", "type": "DirectoryOrCreate" } }],
        });
        let host = Host {
            name: "n",
            ip: "10.0.0.1".to_owned(),
            network: "/run/netns/n".into(),
            root: dir.join("host"),
            pod_dir: dir.join("pod"),
            rootfs: dir.join("rootfs"),
        };
        Pod { spec: &pod, files: Vec::new(), host }.runtime_spec(&base(), &pod["containers"][0])
    }

    #[test]
    fn the_security_context_is_taken_as_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let security = json!({
            "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsUser": 0, "runAsGroup": 0,
            "capabilities": { "drop": ["ALL"], "add": ["BPF"] }, "seccompProfile": { "type": "RuntimeDefault" },
        });
        let spec = spec_of(dir.path(), &security).unwrap();
        assert_eq!(spec["process"]["user"], json!({ "uid": 0, "gid": 0 }));
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_BPF"]));
        assert_eq!(spec["process"]["capabilities"]["ambient"], json!([]));
        assert_eq!(spec["process"]["args"], json!(["/a", "b"]));
        assert_eq!(spec["process"]["env"], json!(["PATH=/usr/bin", "NODE=n"]));
        assert_eq!(spec["root"]["readonly"], true);
        let mount =
            spec["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == "/v").unwrap();
        assert_eq!(mount["options"], json!(["rbind", "rprivate", "ro"]));
        assert!(dir.path().join("host/var/v").is_dir());
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for (security, named) in [
            (json!({ "privileged": true }), "privileged"),
            (json!({ "procMount": "Unmasked" }), "procMount"),
            (json!({ "capabilities": { "add": ["BPF"] } }), "dropped"),
            (json!({ "seccompProfile": { "type": "Unconfined" } }), "Unconfined"),
            (json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "x.json" } }), "x.json"),
        ] {
            let error = format!("{:#}", spec_of(dir.path(), &security).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
