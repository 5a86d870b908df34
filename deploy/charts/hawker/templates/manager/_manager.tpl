{{- define "hawker.rootSecret" -}}
{{ .Values.manager.rootPassword.existingSecret | default (printf "%s-manager-root" (include "hawker.fullname" .)) }}
{{- end -}}

{{- define "hawker.managerEnv" -}}
{{- with .Values.manager.database.existingSecret }}
- name: HAWKER_MANAGER_DATABASE
  valueFrom: { secretKeyRef: { name: {{ . }}, key: {{ $.Values.manager.database.secretKey }} } }
{{- end }}
{{- include "hawker.verboseEnv" (dict "root" . "key" "manager") }}
{{- with .Values.manager.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
