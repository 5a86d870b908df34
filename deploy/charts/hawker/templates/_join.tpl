{{/* The join token that daemons and schedulers show their manager. */}}

{{/* The Secret's name; empty: nothing is shown. Only a release with a manager makes one of its own. */}}
{{- define "hawker.joinSecret" -}}
{{- $own := .Values.joinToken -}}
{{- if and $own.existingSecret $own.value -}}{{- fail "joinToken: existingSecret or value, not both" -}}{{- end -}}
{{- if and $own.require (not $own.enable) -}}{{- fail "joinToken.require needs joinToken.enable" -}}{{- end -}}
{{- if $own.enable -}}
{{- if $own.existingSecret -}}
{{ $own.existingSecret }}
{{- else if or $own.value .Values.manager.enable -}}
{{ include "hawker.fullname" . }}-join-token
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where the programs find it; empty: nowhere. */}}
{{- define "hawker.joinFile" -}}
{{- if include "hawker.joinSecret" . -}}/etc/hawker-join/token{{- end -}}
{{- end -}}

{{- define "hawker.joinMount" -}}
{{- if include "hawker.joinSecret" . -}}
- { name: join-token, mountPath: /etc/hawker-join, readOnly: true }
{{- end -}}
{{- end -}}

{{/* The directory and not the file, so that a new token comes into running pods. The group is the pod's, where it has one. */}}
{{- define "hawker.joinVolume" -}}
{{- with include "hawker.joinSecret" . -}}
- name: join-token
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440
    items: [{ key: {{ $.Values.joinToken.secretKey }}, path: token }]
{{- end -}}
{{- end -}}
