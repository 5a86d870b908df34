{{/* What the pods of hawker-control share. */}}

{{/* A volume of a StatefulSet's pods. */}}
{{- define "hawker.claim" -}}
{{- if .persistence.enable -}}
volumeClaimTemplates:
  - metadata: { name: {{ .name }} }
    spec:
      accessModes: {{ toJson .persistence.accessModes }}
      {{- with .persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources: { requests: { storage: {{ .persistence.size }} } }
{{- end -}}
{{- end -}}

{{- define "hawker.controlPodSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "hawker.controlSecurity" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "hawker.controlProbes" -}}
livenessProbe:
  httpGet: { path: /healthz, port: metrics }
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /healthz, port: {{ .ready }} }
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}
