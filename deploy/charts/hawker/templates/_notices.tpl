{{/* What of the given values was translated or has no meaning here, a line each. */}}
{{- define "hawker.notices" -}}
{{- range $part := include "hawker.components" . | fromJsonArray }}
{{- $own := index $.Values .key }}
{{- if include "hawker.foreignImage" $own.image }}
- {{ .key }}.image: {{ $own.image }}{{ with $own.tag }}:{{ . }}{{ end }} is another product's; {{ include "hawker.image" (dict "root" $ "key" .key) }} is used.
{{- end }}
{{- $foreign := splitList " " (include (ternary "hawker.foreignControlKeys" "hawker.foreignDaemonKeys" (has .key (list "manager" "scheduler"))) $) }}
{{- $dropped := list }}
{{- range $name, $_ := $own.config }}
{{- if and (has $name $foreign) (not (has $name (list "verbose" "scheduler" "manager"))) }}{{ $dropped = append $dropped $name }}{{ end }}
{{- end }}
{{- with $dropped }}
- {{ $part.key }}.config.{{ join (printf ", %s.config." $part.key) . }}: no meaning here, ignored.
{{- end }}
{{- end }}
{{- range list "redis" "mysql" "externalRedis" "externalMysql" }}
{{- if index $.Values . }}
- {{ . }}: not needed. Hawker keeps its state in an embedded database{{ if $.Values.manager.database.existingSecret }} or in PostgreSQL{{ end }}; nothing connects to it.
{{- end }}
{{- end }}
{{- end -}}
