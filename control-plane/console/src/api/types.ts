// What the REST API says, as far as the console reads it. Not a second definition: the API's own is /api/v1/openapi.json.

/** RFC 3339, or seconds since 1970. */
export type Time = string | number;

export interface Page<T> {
  items: T[];
  total: number;
  page: number;
  per_page: number;
}

export interface Scopes {
  cidrs: string[];
  idc: string;
  location: string;
  hostnames: string[];
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

export interface Live {
  peers: number;
  seed_peers: number;
  schedulers: number;
}

export interface Cluster {
  id: number;
  name: string;
  bio: string;
  is_default: boolean;
  scopes: Scopes;
  scheduler_cluster_id: number;
  seed_peer_cluster_id: number;
  config: JsonObject;
  /** Hosts in touch with the manager now. */
  live?: Live;
  created_at: Time;
  updated_at: Time;
}

export interface Host {
  id: string;
  hostname: string;
  ip: string;
  piece_port: number;
  idc: string;
  location: string;
  kind: "peer" | "seed";
  version: string;
  engine: string;
  engine_reason?: string;
  shaper: string;
  shaper_reason?: string;
  cluster_id: number;
  cluster_name: string;
  reason: string;
  matched_cluster_id: number;
  fell_back: boolean;
  registered_at: Time;
}

export interface Scheduler {
  id: number;
  hostname: string;
  addr: string;
  scheduler_cluster_id: number;
  version: string;
  registered_at: Time;
}

export interface Placement {
  cluster_id: number;
  cluster_name: string;
  reason: string;
  scheduler_cluster_id: number;
  seed_peer_cluster_id: number;
  schedulers: { id: number; hostname: string; addr: string }[];
}

export interface Moved {
  sent_bytes: number;
  received_bytes: number;
}

export type Source = "local" | "peer_same_zone" | "peer_cross_zone" | "seed" | "origin";
export type TrafficClass = "upload" | "download" | "origin" | "control" | "others";

/** Bytes in one step of the history. */
export interface Step {
  /** Seconds since 1970. */
  at: number;
  cluster_id: number;
  host_id?: string;
  classes: Record<TrafficClass, Moved>;
  delivered: Record<Source, number>;
}

export interface Saved {
  origin_bytes_avoided: number;
  money: number | null;
  currency: string | null;
}

export interface Bandwidth extends Page<Step> {
  since: number;
  step: number;
  saved?: Saved;
}

export interface ZoneCell {
  cluster_id?: number;
  from: string;
  to: string;
  bytes: number;
}

export interface TopPeer {
  cluster_id: number;
  host_id: string;
  /** Empty: it is not live now. */
  hostname: string;
  bytes: number;
  origin_bytes: number;
}

export interface TopTask {
  cluster_id: number;
  task: string;
  bytes: number;
  origin_bytes: number;
}

export interface Straggler {
  host_id: string;
  hostname: string;
  reason: string;
  bytes_done: number;
}

export interface Rollout {
  name: string;
  cluster_id: number;
  bytes: number;
  nodes_done: number;
  nodes_wanted: number;
  nodes_total: number;
  started_at: Time;
  eta_seconds: number | null;
  stragglers: Straggler[];
}

export interface TaskEntry {
  task: string;
  cluster_id: number;
  /** 0: not known. */
  bytes: number;
  pieces: number;
  holders: number;
  downloading: number;
  origin_bytes: number;
  last_seen: Time;
}

export interface TaskHost {
  cluster_id: number;
  host_id: string;
  hostname: string;
  ip: string;
  state: string;
  pieces: number;
}

/** A task in every cluster that has it. */
export interface TaskDetail {
  task: string;
  clusters: TaskEntry[];
  hosts: TaskHost[];
}

export type JobState = "pending" | "running" | "succeeded" | "failed" | "cancelled";

export interface JobNode {
  host_id: string;
  hostname: string;
  cluster_id: number;
  state: string;
  bytes_done: number;
  bytes_total: number;
  error: string | null;
}

export interface Job {
  id: number | string;
  type: string;
  args: { image?: string; url?: string; platforms?: string[]; cluster_ids?: number[]; scope?: string };
  state: JobState;
  created_at: Time;
  started_at: Time | null;
  ended_at: Time | null;
  created_by: string | null;
  error: string | null;
  cancel_requested: boolean;
  nodes_total: number;
  nodes_succeeded: number;
  nodes_failed: number;
  /** With one job, not in lists. */
  tasks?: { task: string; bytes: number }[];
  nodes?: JobNode[];
}

export type Role = "admin" | "operator" | "viewer";

export interface User {
  id: number;
  name: string;
  role: Role;
  cluster_ids: number[];
  disabled: boolean;
  source: string;
  created_at: Time;
}

export interface Me {
  id: number;
  name: string;
  role: Role;
  cluster_ids: number[];
  csrf_token?: string;
}

export interface Token {
  id: number;
  name: string;
  scopes: string[];
  expires_at: Time | null;
  created_at: Time;
  last_used_at: Time | null;
}

export interface AuditEntry {
  id: number;
  at: Time;
  user: string;
  action: string;
  object: string;
  detail: Json;
  remote: string;
  outcome: string | number;
}

export interface Provider {
  name: string;
  label: string;
}
