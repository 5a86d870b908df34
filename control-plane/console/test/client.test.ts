// Requests: what is sent with them, what an answer becomes.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError, call, get, getAll, onSessionEnded, useCsrfToken } from "../src/api/client";

let asked: { url: string; init: RequestInit }[] = [];
let answers: Response[] = [];

beforeEach(() => {
  asked = [];
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    asked.push({ url, init });
    const answer = answers.shift();
    if (!answer) throw new TypeError("no network");
    return answer;
  });
});

afterEach(() => {
  answers = [];
  useCsrfToken(null);
  onSessionEnded(() => {});
  vi.unstubAllGlobals();
});

const json = (body: unknown, init: ResponseInit = {}) => new Response(JSON.stringify(body), { headers: { "content-type": "application/json", etag: '"7"' }, ...init });
const problem = (status: number, detail: string, field?: string) => new Response(JSON.stringify({ status, detail, field }), { status, headers: { "content-type": "application/problem+json" } });

describe("a request", () => {
  it("carries the CSRF token only where it changes something, and the ETag where one was given", async () => {
    useCsrfToken("secret");
    answers = [json({}), json({})];
    await get("/clusters");
    await call("/clusters/1", { method: "PATCH", body: { name: "x" }, etag: '"7"' });
    const [read, write] = asked.map(({ init }) => init.headers as Record<string, string>);
    expect(read).toEqual({ accept: "application/json" });
    expect(write).toMatchObject({ "x-csrf-token": "secret", "if-match": '"7"', "content-type": "application/json" });
    expect(asked[1]!.url).toBe("/api/v1/clusters/1");
  });

  it("gives the answer with its ETag, and texts as they are", async () => {
    answers = [json({ id: 1 }), new Response("a: 1\n", { headers: { "content-type": "application/yaml" } })];
    expect(await call("/clusters/1")).toEqual({ body: { id: 1 }, etag: '"7"' });
    expect(await get("/clusters/1/values")).toBe("a: 1\n");
  });
});

describe("a refusal", () => {
  it("says what the manager said, also where no JSON came", async () => {
    answers = [problem(422, "name: ``: must have 1 to 63 bytes", "name"), new Response("<html>", { status: 502, statusText: "Bad Gateway" })];
    await expect(get("/x")).rejects.toMatchObject({ status: 422, field: "name", message: "name: ``: must have 1 to 63 bytes" });
    await expect(get("/x")).rejects.toMatchObject({ status: 502, message: "the manager answered 502 Bad Gateway" });
    await expect(get("/x")).rejects.toMatchObject({ status: 0, message: "the manager does not answer" });
  });

  it("ends the session where it is not known any more, but not at signing in", async () => {
    const ended = vi.fn();
    onSessionEnded(ended);
    answers = [problem(401, "wrong"), problem(401, "sign in first")];
    await expect(call("/users/signin", { method: "POST", anonymous: true })).rejects.toBeInstanceOf(ApiError);
    expect(ended).not.toHaveBeenCalled();
    await expect(get("/clusters")).rejects.toBeInstanceOf(ApiError);
    expect(ended).toHaveBeenCalledOnce();
  });
});

it("puts the pages of a list together and stops where they end", async () => {
  answers = [json({ items: [1, 2], total: 5, since: 9 }), json({ items: [3, 4], total: 5 }), json({ items: [], total: 5 })];
  expect(await getAll("/peers?q=a")).toEqual({ items: [1, 2, 3, 4], total: 5, since: 9 });
  expect(asked.map(({ url }) => url)).toEqual([1, 2, 3].map((page) => `/api/v1/peers?q=a&per_page=1000&page=${page}`));
});
