{{/* What the pods of hawkerd share: daemons on the nodes and seed peers. */}}

{{/* Nothing but what the programs were measured to need. Root, since Kubernetes gives capabilities to no other user. */}}
{{- define "hawker.daemonSecurity" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
capabilities:
  drop: [ALL]
  {{- with .Values.security.capabilities }}
  add: {{ toJson . }}
  {{- end }}
seccompProfile:
  type: {{ .Values.security.seccomp.type }}
  {{- if eq .Values.security.seccomp.type "Localhost" }}
  localhostProfile: {{ .Values.security.seccomp.localhostProfile }}
  {{- end }}
{{- end -}}

{{/* An init container: root that owns the files it writes, and may do nothing else. */}}
{{- define "hawker.initSecurity" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "hawker.needsProfile" -}}
{{- if eq .Values.security.seccomp.type "Localhost" -}}true{{- end -}}
{{- end -}}

{{/* Puts the program's own seccomp profile where this node's kubelet looks for it. */}}
{{- define "hawker.profileContainer" -}}
- name: seccomp-profile
  image: {{ include "hawker.image" . }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  command: [/usr/bin/hawkerd]
  args: [seccomp-profile, --to, {{ printf "/host/seccomp/%s" .root.Values.security.seccomp.localhostProfile }}]
  securityContext: {{- include "hawker.initSecurity" .root | nindent 4 }}
  volumeMounts:
    - { name: seccomp, mountPath: /host/seccomp }
{{- end -}}

{{- define "hawker.daemonEnv" -}}
{{- $host := dig "host" (dict) (index .root.Values .key).config -}}
{{- if not $host.hostname }}
- name: HAWKER_HOST_HOSTNAME
  valueFrom: { fieldRef: { fieldPath: {{ ternary "metadata.name" "spec.nodeName" (eq .key "seedPeer") }} } }
{{- end }}
{{- if not $host.advertiseIP }}
- name: HAWKER_HOST_ADVERTISE_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
{{- end }}
{{- include "hawker.verboseEnv" . }}
{{- with (index .root.Values .key).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hawker.daemonContainer" -}}
{{- $own := index .root.Values .key -}}
- name: hawkerd
  image: {{ include "hawker.image" . }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  command: [/usr/bin/hawkerd]
  args: [--config, /etc/hawker/daemon.yaml]
  env: {{- include "hawker.daemonEnv" . | trim | nindent 4 }}
  {{- /* In the node's network a declared port is one of the node's: the next pod of an upgrade could not come up beside this one. */}}
  {{- if not (and (eq .key "dfdaemon") $own.hostNetwork) }}
  ports:
    - { name: peer, containerPort: 4000 }
    - { name: metrics, containerPort: 4003 }
  {{- end }}
  securityContext: {{- include "hawker.daemonSecurity" .root | nindent 4 }}
  {{- range $probe, $period := dict "livenessProbe" 20 "readinessProbe" 5 }}
  {{ $probe }}:
    httpGet: { path: /healthz, port: 4003{{ if not $.open }}, host: 127.0.0.1{{ end }} }
    periodSeconds: {{ $period }}
    timeoutSeconds: 5
    failureThreshold: 6
  {{- end }}
  resources: {{- toYaml $own.resources | nindent 4 }}
  volumeMounts:
    - { name: config, mountPath: /etc/hawker, readOnly: true }
    - { name: store, mountPath: /var/lib/hawker }
    - { name: run, mountPath: /run/hawker }
    - { name: tmp, mountPath: /tmp }
    {{- if $own.jobAccount.existingSecret }}
    - { name: account, mountPath: /etc/hawker-account, readOnly: true }
    {{- end }}
    {{- with include "hawker.joinMount" .root }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- /* The account of preheat jobs; the argument is the secret's name. */}}
{{- define "hawker.accountVolume" -}}
- name: account
  secret:
    secretName: {{ . }}
    defaultMode: 256 # 0400
    items: [{ key: .dockerconfigjson, path: config.json }]
{{- end -}}
