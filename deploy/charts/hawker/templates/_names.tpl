{{/* Names, labels, images. */}}

{{- define "hawker.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "hawker.domain" -}}
{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* What a pod is selected by; `app` is the release's name, as Services written by hand expect. */}}
{{- define "hawker.selector" -}}
app: {{ include "hawker.fullname" .root }}
release: {{ .root.Release.Name }}
component: {{ .component }}
{{- end -}}

{{- define "hawker.labels" -}}
{{ include "hawker.selector" . }}
app.kubernetes.io/name: hawker
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* The image of another product, which the values of that product's chart name. */}}
{{- define "hawker.foreignImage" -}}
{{- if regexMatch "(^|/)(dragonflyoss|d7yio)/" (. | default "") -}}true{{- end -}}
{{- end -}}

{{/* Image of a component: its own, unless it names none or another product's. */}}
{{- define "hawker.image" -}}
{{- $own := index .root.Values .key -}}
{{- $images := .root.Values.images -}}
{{- $program := ternary "hawker-control" "hawkerd" (has .key (list "manager" "scheduler")) -}}
{{- $tag := $images.tag | default .root.Chart.AppVersion -}}
{{- if or (not $own.image) (include "hawker.foreignImage" $own.image) -}}
{{ $images.registry }}/{{ $program }}:{{ $tag }}
{{- else -}}
{{ $own.image }}:{{ $own.tag | default $tag }}
{{- end -}}
{{- end -}}

{{/* Parts that all pods share. */}}
{{- define "hawker.podCommon" -}}
{{- $own := index .root.Values .key -}}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
serviceAccountName: {{ include "hawker.fullname" .root }}-{{ .component }}
# Nothing in Hawker asks the Kubernetes API.
automountServiceAccountToken: false
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* RUST_LOG for `config.verbose`, which says debug for Hawker's own modules alone. */}}
{{- define "hawker.verboseEnv" -}}
{{- if (index .root.Values .key).config.verbose }}
- name: RUST_LOG
  value: info,hawker_daemon=debug,hawker_control=debug
{{- end }}
{{- end -}}
