{{/* The components that are enabled: key in the values, name, ports, whether a port for metrics is offered. */}}
{{- define "hawker.components" -}}
{{- $all := list
  (dict "key" "manager" "component" "manager" "ports" (list 8080 65003) "metrics" 8000)
  (dict "key" "scheduler" "component" "scheduler" "ports" (list 8002) "metrics" 8000)
  (dict "key" "seedPeer" "component" "seed-peer" "ports" (list 4000) "metrics" 4003)
  (dict "key" "dfdaemon" "component" "dfdaemon" "ports" (list 4000) "metrics" 4003)
-}}
{{- $enabled := list -}}
{{- range $all -}}{{- if (index $.Values .key).enable -}}{{- $enabled = append $enabled . -}}{{- end -}}{{- end -}}
{{- toJson $enabled -}}
{{- end -}}
