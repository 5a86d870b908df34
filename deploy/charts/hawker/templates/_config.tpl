{{/* From values to daemon.yaml and control.yaml. */}}

{{/* Keys of other products' configurations that mean nothing here, or that are translated below. */}}
{{- define "hawker.foreignDaemonKeys" -}}
verbose console pprofPort scheduler aliveTime gcInterval keepStorage workHome logDir cacheDir pluginDir dataDir health download upload objectStorage proxy security network announcer jaeger log server dynconfig tracing
{{- end -}}
{{- define "hawker.foreignControlKeys" -}}
verbose console pprofPort auth cache objectStorage security jaeger network job log server dynconfig host resource storage manager seedPeer workHome logDir cacheDir pluginDir dataDir trainer
{{- end -}}

{{/* The manager's gRPC address, host:port, where a component does not name it itself. */}}
{{- define "hawker.managerAddr" -}}
{{- if .Values.manager.enable -}}
{{ include "hawker.fullname" . }}-manager.{{ include "hawker.domain" . }}:65003
{{- else if .Values.externalManager.host -}}
{{ .Values.externalManager.host }}:{{ .Values.externalManager.grpcPort }}
{{- else -}}
{{- fail "no manager: set manager.enable, or externalManager.host" -}}
{{- end -}}
{{- end -}}

{{/* Addresses of managers in an older daemon's words: scheduler.manager.netAddrs. */}}
{{- define "hawker.daemonManagerAddrs" -}}
{{- $config := (index .root.Values .key).config -}}
{{- $addrs := list -}}
{{- range (dig "scheduler" "manager" "netAddrs" (list) $config) -}}
{{- $addrs = append $addrs (printf "http://%s" .addr) -}}
{{- end -}}
{{- with (dig "manager" "addr" "" $config) -}}{{- $addrs = append $addrs . -}}{{- end -}}
{{- with (dig "manager" "addrs" (list) $config) -}}{{- $addrs = . -}}{{- end -}}
{{- if not $addrs -}}{{- $addrs = list (printf "http://%s" (include "hawker.managerAddr" .root)) -}}{{- end -}}
{{- toJson $addrs -}}
{{- end -}}

{{/* Registries of all runtimes, each once. */}}
{{- define "hawker.registries" -}}
{{- $all := list -}}
{{- range $runtime := list "containerd" "crio" "docker" -}}
{{- $own := index $.Values.containerRuntime $runtime -}}
{{- if $own.enable -}}{{- $all = concat $all ($own.registries | default list) -}}{{- end -}}
{{- end -}}
{{- toJson (uniq $all) -}}
{{- end -}}

{{/* Where traces go; empty: nowhere. */}}
{{- define "hawker.otlpEndpoint" -}}
{{- if .Values.jaeger.enable -}}http://{{ include "hawker.fullname" . }}-jaeger-collector.{{ include "hawker.domain" . }}:4317{{- end -}}
{{- end -}}

{{/* daemon.yaml of `dfdaemon` or `seedPeer`. */}}
{{- define "hawker.daemonConfig" -}}
{{- $given := deepCopy (index .root.Values .key).config -}}
{{- $seed := dig "scheduler" "manager" "seedPeer" (dict) $given -}}
{{- $own := dict -}}
{{- $own = dict -}}
{{- $foreign := splitList " " (include "hawker.foreignDaemonKeys" .) -}}
{{- range $name, $value := $given -}}
{{- if not (has $name $foreign) -}}{{- $_ := set $own $name $value -}}{{- end -}}
{{- end -}}
{{- $isSeed := eq .key "seedPeer" -}}
{{- $open := or $isSeed (index .root.Values .key).metrics.enable (not .root.Values.dfdaemon.hostNetwork) -}}
{{- $base := dict
  "seedPeer" (dict "enable" (ternary (dig "enable" true $seed) false $isSeed) "clusterID" (ternary (dig "clusterID" 0 $seed) 0 $isSeed | int64))
  "mirror" (dict "addr" "127.0.0.1:4001" "registries" (include "hawker.registries" .root | fromJsonArray))
  "peer" (dict "addr" "0.0.0.0:4000")
  "storage" (dict "dir" "/var/lib/hawker")
  "metrics" (dict "addr" (ternary "0.0.0.0:4003" "127.0.0.1:4003" $open))
  "api" (dict "socket" "/run/hawker/hawkerd.sock")
-}}
{{- with include "hawker.otlpEndpoint" .root -}}{{- $_ := set $base "telemetry" (dict "otlpEndpoint" .) -}}{{- end -}}
{{- $config := mergeOverwrite $base $own -}}
{{- $manager := dict "addrs" (include "hawker.daemonManagerAddrs" . | fromJsonArray) -}}
{{- with dig "manager" "joinTokenFile" (include "hawker.joinFile" .root) $given -}}{{- $_ := set $manager "joinTokenFile" . -}}{{- end -}}
{{- $_ := set $config "manager" $manager -}}
{{- toYaml $config -}}
{{- end -}}

{{/* A component's own keys of control.yaml. */}}
{{- define "hawker.controlOwn" -}}
{{- $own := dict -}}
{{- $foreign := splitList " " (include "hawker.foreignControlKeys" .) -}}
{{- range $name, $value := (index .root.Values .key).config -}}
{{- if not (or (has $name $foreign) (and (eq $name "database") (kindIs "map" $value))) -}}{{- $_ := set $own $name $value -}}{{- end -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{/* control.yaml of the manager. */}}
{{- define "hawker.managerConfig" -}}
{{- $own := include "hawker.controlOwn" (dict "root" . "key" "manager") | fromYaml -}}
{{- $base := dict "rest" "0.0.0.0:8080" "grpc" "0.0.0.0:65003" "rootPasswordFile" "/etc/hawker-root/password" "advertiseAddr" (include "hawker.managerAddr" .) -}}
{{- if not .Values.manager.database.existingSecret -}}{{- $_ := set $base "database" "sqlite:///var/lib/hawker/manager.db" -}}{{- end -}}
{{- if .Values.joinToken.require -}}{{- $_ := set $base "joinTokenFile" (include "hawker.joinFile" .) -}}{{- end -}}
{{- toYaml (dict "manager" (mergeOverwrite $base $own) "metrics" (dict "addr" "0.0.0.0:8000")) -}}
{{- end -}}

{{/* control.yaml of a scheduler; its advertised name is its pod's, by variable. */}}
{{- define "hawker.schedulerConfig" -}}
{{- $own := include "hawker.controlOwn" (dict "root" . "key" "scheduler") | fromYaml -}}
{{- $given := dig "manager" (dict) .Values.scheduler.config -}}
{{- $addr := dig "addr" "" $given | default (include "hawker.managerAddr" .) -}}
{{- $base := dict
  "grpc" "0.0.0.0:8002"
  "clusterID" (dig "schedulerClusterID" 1 $given | int64)
  "managerAddrs" (list (printf "http://%s" $addr))
-}}
{{- with include "hawker.joinFile" . -}}{{- $_ := set $base "joinTokenFile" . -}}{{- end -}}
{{- toYaml (dict "scheduler" (mergeOverwrite $base $own) "metrics" (dict "addr" "0.0.0.0:8000")) -}}
{{- end -}}
