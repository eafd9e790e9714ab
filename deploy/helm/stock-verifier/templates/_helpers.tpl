{{- define "stock-verifier.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "stock-verifier.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stock-verifier.labels" -}}
{{ include "stock-verifier.selector" . }}
{{ include "stock-verifier.commonLabels" . }}
{{- end }}

{{/* A gate is no verifier: no Service and no budget of the one shall take the other for it. */}}
{{- define "stock-verifier.gateSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-gate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stock-verifier.gateLabels" -}}
{{ include "stock-verifier.gateSelector" . }}
{{ include "stock-verifier.commonLabels" . }}
{{- end }}

{{- define "stock-verifier.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "stock-verifier.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "stock-verifier.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* A value as it was written. Helm reads every number as a float, and would say 1e+06 of a million. */}}
{{- define "stock-verifier.plain" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "stock-verifier.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{/* What a container may do: nothing but run. */}}
{{- define "stock-verifier.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "stock-verifier.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* How the pods of verifiers and gates begin. */}}
{{- define "stock-verifier.pod" -}}
serviceAccountName: {{ include "stock-verifier.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "stock-verifier.podSecurity" . | nindent 2 }}
{{- end }}

{{/* Where a pod may run. .pod has its values, .selector the labels by which it is spread. */}}
{{- define "stock-verifier.scheduling" -}}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if .pod.topologySpreadConstraints }}
  {{- toYaml .pod.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- .selector | nindent 8 }}
  {{- end }}
{{- end }}

{{/* The variables that verifiers and gates both have. What differs is given beside .Values. Each of .secrets says what it is
     .of, its .file, and the .secret with its name and key; without a name there is none. */}}
{{- define "stock-verifier.environment" -}}
- {name: STOCK_VERIFIER_ORDERS_TOPIC, value: {{ .Values.topics.orders | quote }}}
- {name: STOCK_VERIFIER_ADJUSTMENTS_TOPIC, value: {{ .Values.topics.adjustments | quote }}}
- {name: STOCK_VERIFIER_ACCEPTED_TOPIC, value: {{ .Values.topics.accepted | quote }}}
- {name: STOCK_VERIFIER_REJECTED_TOPIC, value: {{ .Values.topics.rejected | quote }}}
- {name: STOCK_VERIFIER_LEVELS_TOPIC, value: {{ .Values.topics.levels | quote }}}
- {name: STOCK_VERIFIER_DEAD_LETTER_TOPIC, value: {{ .Values.topics.deadLetters | quote }}}
- {name: STOCK_VERIFIER_DATABASE_URL, value: {{ required "database.url is required" .databaseUrl | quote }}}
- {name: STOCK_VERIFIER_STOP_TIMEOUT, value: {{ printf "%ds" (int .stopTimeoutSeconds) | quote }}}
- {name: STOCK_VERIFIER_HTTP_LISTEN, value: {{ printf "0.0.0.0:%d" (int .port) | quote }}}
- {name: STOCK_VERIFIER_LOG_FORMAT, value: json}
{{- if .properties }}
- name: STOCK_VERIFIER_PROPERTY
  value: |-
    {{- range $name, $value := .properties }}
    {{ $name }}={{ include "stock-verifier.plain" $value }}
    {{- end }}
{{- end }}
{{- if .readUrls }}
- name: STOCK_VERIFIER_READ_DATABASE_URL
  value: {{ join "\n" .readUrls | quote }}
{{- end }}
{{- range .secrets }}
{{- if .secret.name }}
- {name: STOCK_VERIFIER_{{ upper .of }}_{{ upper .file }}_FILE, value: {{ include "stock-verifier.secretFolder" . }}/{{ .file }}}
{{- end }}
{{- end }}
{{- range $name, $value := .settings }}
- {name: STOCK_VERIFIER_{{ $name | replace "-" "_" | upper }}, value: {{ include "stock-verifier.plain" $value | quote }}}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stock-verifier.secretFolder" -}}
/run/secrets/stock-verifier/{{ .of }}
{{- end }}

{{/* With .Values and .secrets, as above. */}}
{{- define "stock-verifier.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range .secrets }}
{{- if .secret.name }}
- {name: {{ .of }}-{{ .file }}, mountPath: {{ include "stock-verifier.secretFolder" . }}, readOnly: true}
{{- end }}
{{- end }}
{{- if or .Values.certificates.secretName .Values.certificates.configMapName }}
- {name: certificates, mountPath: /etc/stock-verifier/certificates, readOnly: true}
{{- end }}
{{- with .extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The same. */}}
{{- define "stock-verifier.volumes" -}}
- {name: tmp, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
{{- range .secrets }}
{{- if .secret.name }}
- {name: {{ .of }}-{{ .file }}, secret: {secretName: {{ .secret.name }}, items: [{key: {{ .secret.key }}, path: {{ .file }}}]}}
{{- end }}
{{- end }}
{{- if .Values.certificates.secretName }}
- {name: certificates, secret: {secretName: {{ .Values.certificates.secretName }}}}
{{- else if .Values.certificates.configMapName }}
- {name: certificates, configMap: {name: {{ .Values.certificates.configMapName }}}}
{{- end }}
{{- with .extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a pod may connect to: of a list, each with .to and .ports; and names are looked up. */}}
{{- define "stock-verifier.egress" -}}
# Names.
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- range . }}
- ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* How metrics are asked for: with the token of .secret, where it has a name, at an .interval, as a .job. */}}
{{- define "stock-verifier.scraped" -}}
- port: http
  path: /metrics
  interval: {{ .interval }}
  {{- with .secret }}{{ if .name }}
  authorization:
    credentials: {name: {{ .name }}, key: {{ .key }}}
  {{- end }}{{ end }}
  relabelings:
    # What deploy/prometheus/alerts.yml calls the job.
    - {targetLabel: job, replacement: {{ .job }}}
{{- end }}
