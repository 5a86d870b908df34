// Requests to the manager that served this page, with the session's cookie, and its refusals as errors.
// Invariant: nothing of a session is stored by the console; the cookie is HttpOnly, the CSRF token lives in memory.

const BASE = "/api/v1";
/** How long an answer may take: the manager ends a request after 30 s by itself. */
const LIMIT_MS = 35_000;
/** Most pages of one list that are put together. */
const MAX_PAGES = 20;
const PER_PAGE = 1000;

/** Why a request was refused, in the manager's words. */
export class ApiError extends Error {
  readonly status: number;
  /** Which part of what was sent is wrong, as the manager names it: `scopes.cidrs`. */
  readonly field: string | null;

  constructor(status: number, detail: string, field: string | null = null) {
    super(detail);
    this.status = status;
    this.field = field;
  }
}

export interface Answer<T> {
  body: T;
  etag: string | null;
}

type Ended = () => void;

let csrfToken: string | null = null;
let onSessionEnd: Ended = () => {};

export function useCsrfToken(token: string | null): void {
  csrfToken = token;
}

/** Called when the manager no longer knows the session. */
export function onSessionEnded(ended: Ended): void {
  onSessionEnd = ended;
}

export interface Options {
  method?: "GET" | "POST" | "PATCH" | "DELETE";
  body?: unknown;
  etag?: string | null;
  signal?: AbortSignal;
  /** 401 is an answer, not the end of the session. */
  anonymous?: boolean;
}

export async function call<T>(path: string, options: Options = {}): Promise<Answer<T>> {
  const response = await send(path, options);
  const text = await response.text();
  if (!response.ok) {
    if (response.status === 401 && !options.anonymous) onSessionEnd();
    throw refusal(response, text);
  }
  const json = response.headers.get("content-type")?.includes("json") ?? false;
  return { body: (json ? JSON.parse(text) : text) as T, etag: response.headers.get("etag") };
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await call<T>(path, signal ? { signal } : {})).body;
}

/** Every page of a list; the first answer's other fields are kept. */
export async function getAll<T extends { items: unknown[]; total: number }>(path: string, signal?: AbortSignal): Promise<T> {
  const joint = path.includes("?") ? "&" : "?";
  const page = (number: number) => get<T>(`${path}${joint}per_page=${PER_PAGE}&page=${number}`, signal);
  const all = await page(1);
  for (let number = 2; all.items.length < all.total && number <= MAX_PAGES; number += 1) {
    const more = await page(number);
    if (more.items.length === 0) break;
    all.items.push(...more.items);
  }
  return all;
}

async function send(path: string, { method = "GET", body, etag, signal }: Options): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET" && csrfToken) headers["x-csrf-token"] = csrfToken;
  if (etag) headers["if-match"] = etag;
  const late = AbortSignal.timeout(LIMIT_MS);
  const init: RequestInit = { method, headers, credentials: "same-origin", signal: signal ? AbortSignal.any([signal, late]) : late };
  if (body !== undefined) init.body = JSON.stringify(body);
  try {
    return await fetch(BASE + path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "the manager does not answer");
  }
}

/** From `application/problem+json` (RFC 9457), or from whatever something between browser and manager answered. */
function refusal({ status, statusText }: Response, text: string): ApiError {
  try {
    const { detail, title, field } = JSON.parse(text) as Record<string, unknown>;
    const words = detail || title;
    if (typeof words === "string") return new ApiError(status, words, typeof field === "string" ? withoutIndices(field) : null);
  } catch {
    // No JSON.
  }
  return new ApiError(status, `the manager answered ${status} ${statusText}`.trim());
}

/** A form has one field for a whole list: `scopes.cidrs[2]` is `scopes.cidrs`. */
export function withoutIndices(field: string): string {
  return field.replace(/\[\d+\]/g, "");
}
