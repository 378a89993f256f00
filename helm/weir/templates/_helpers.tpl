{{/* Names, labels, and what several templates compute. */}}

{{- define "weir.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 54, so that what is hung on it still fits into a label. */}}
{{- define "weir.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" }}
{{- else if contains (include "weir.name" .) .Release.Name }}
{{- .Release.Name | trunc 54 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "weir.name" .) | trunc 54 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What never changes of an object's labels. Takes a list: the root and the component. */}}
{{- define "weir.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "weir.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* `metadata` of an object: one place for the namespace. Takes a list: the root, the component, what comes after the
     full name, and, where there are any, annotations and labels. */}}
{{- define "weir.metadata" -}}
{{- $root := index . 0 -}}
{{- $annotations := dict }}
{{- $labels := dict }}
{{- if gt (len .) 3 }}{{ $annotations = index . 3 }}{{ end }}
{{- if gt (len .) 4 }}{{ $labels = index . 4 }}{{ end -}}
name: {{ include "weir.fullname" $root }}{{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- toYaml (merge (fromYaml (include "weir.labels" (list $root (index . 1)))) $labels) | nindent 2 }}
{{- with merge (dict) $annotations $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The chart's own win over others of the same name. Takes a list: the root and the component. */}}
{{- define "weir.labels" -}}
{{- $root := index . 0 -}}
{{- $labels := dict
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/part-of" "weir"
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge (fromYaml (include "weir.selectorLabels" .)) $labels $root.Values.commonLabels) }}
{{- end }}

{{/* Without versions: a new chart alone must not restart anybody. Takes a list: the root, the component, more labels. */}}
{{- define "weir.podLabels" -}}
{{- toYaml (merge (fromYaml (include "weir.selectorLabels" .)) (index . 2) (index . 0).Values.commonLabels) }}
{{- end }}

{{/* Takes an `image` of the values, and the tag where it has none. */}}
{{- define "weir.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end }}
{{- end }}

{{- define "weir.imagePullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "name") }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "weir.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "weir.fullname" .) "default") }}
{{- end }}

{{/* weir.yaml. Defaults that only the chart needs are not repeated in it. */}}
{{- define "weir.config" -}}
{{- toYaml .Values.config }}
{{- end }}

{{/* The sections that a running process does not take: whatever changes there needs new pods. */}}
{{- define "weir.fixedConfig" -}}
{{- toYaml (omit .Values.config "models" "teams") }}
{{- end }}

{{/* Where a secret is: the name of its Secret, or nothing. Takes the root and an entry of `secrets`. */}}
{{- define "weir.secretName" -}}
{{- $root := index . 0 -}}
{{- $made := $root.Values.externalSecret.enabled | ternary (include "weir.fullname" $root) "" -}}
{{- (index . 1).existingSecret | default $root.Values.secrets.existingSecret | default $made }}
{{- end }}

{{/* An environment variable from a Secret. Takes the root, the variable and the entry; nothing where it has no key. */}}
{{- define "weir.secretVariable" -}}
{{- $entry := index . 2 -}}
{{- if $entry.key }}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "weir.secretName" (list (index . 0) $entry) }}
      key: {{ $entry.key }}
{{- end }}
{{- end }}

{{- define "weir.redisAddresses" -}}
{{- if .Values.valkey.enabled -}}
{{ include "weir.fullname" . }}-valkey:6379
{{- else -}}
{{ join "," .Values.redis.addresses }}
{{- end }}
{{- end }}

{{/* The URL, in which the kubelet puts passwords in place of $(NAME), so that they stand in no object of ours. */}}
{{- define "weir.redisUrl" -}}
{{- $redis := .Values.redis -}}
{{- $secrets := .Values.secrets -}}
{{- $options := list -}}
{{- if $redis.tls.enabled }}
{{- if $redis.tls.caSecret }}{{ $options = append $options (printf "ssl_ca_certs=/etc/weir/redis-ca/%s" $redis.tls.caKey) }}{{ end }}
{{- if $redis.tls.clientCertSecret }}
{{- $options = concat $options (list "ssl_certfile=/etc/weir/redis-client/tls.crt" "ssl_keyfile=/etc/weir/redis-client/tls.key") }}
{{- end }}
{{- if not $redis.tls.verify }}{{ $options = concat $options (list "ssl_cert_reqs=none" "ssl_check_hostname=false") }}{{ end }}
{{- end }}
{{- if eq $redis.mode "sentinel" }}
{{- if $redis.sentinelUsername }}{{ $options = append $options (printf "sentinel_username=%s" $redis.sentinelUsername) }}{{ end }}
{{- if $secrets.sentinelPassword.key }}{{ $options = append $options "sentinel_password=$(REDIS_SENTINEL_PASSWORD)" }}{{ end }}
{{- end -}}
{{ $redis.tls.enabled | ternary "rediss" "redis" }}{{ eq $redis.mode "standalone" | ternary "" (printf "+%s" $redis.mode) -}}
://
{{- if or $redis.username $secrets.redisPassword.key }}{{ $redis.username }}{{ if $secrets.redisPassword.key }}:$(REDIS_PASSWORD){{ end }}@{{ end -}}
{{- include "weir.redisAddresses" . -}}
{{- if eq $redis.mode "sentinel" }}/{{ $redis.masterName }}{{ end -}}
{{- if ne $redis.mode "cluster" }}/{{ int64 $redis.database }}{{ end -}}
{{- with $options }}?{{ join "&" . }}{{ end -}}
{{- end }}

{{/* All variables that the chart sets, in the order in which they need each other. */}}
{{- define "weir.env" -}}
- name: WEIR_CONFIG
  value: /etc/weir/config/weir.yaml
{{- $secrets := .Values.secrets }}
{{- if $secrets.redisUrl.key }}
{{- include "weir.secretVariable" (list . "WEIR_REDIS__URL" $secrets.redisUrl) }}
{{- else }}
{{- include "weir.secretVariable" (list . "REDIS_PASSWORD" $secrets.redisPassword) }}
{{- include "weir.secretVariable" (list . "REDIS_SENTINEL_PASSWORD" $secrets.sentinelPassword) }}
- name: WEIR_REDIS__URL
  value: {{ include "weir.redisUrl" . | quote }}
{{- end }}
{{- include "weir.secretVariable" (list . "WEIR_KEYS__PEPPER" $secrets.pepper) }}
{{- include "weir.secretVariable" (list . "WEIR_TELEMETRY__OTLP_HEADERS" $secrets.otlpHeaders) }}
{{- range $variable, $entry := $secrets.upstreamKeys }}
{{- include "weir.secretVariable" (list $ $variable $entry) }}
{{- end }}
{{- end }}

{{/* What the pod needs to end: what it announces, its streams, the last settlements (5 s), and twice the servers' own
     margin (10 s) with what is left for spans and files. */}}
{{- define "weir.graceNeeded" -}}
{{- $drain := .Values.config.drain -}}
{{- addf .Values.preStopSeconds $drain.announce_seconds $drain.deadline_seconds 30 | ceil | int64 }}
{{- end }}

{{/* A quantity of memory as whole MiB. */}}
{{- define "weir.mebibytes" -}}
{{- $factors := dict "Ki" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "k" 0.00095367431640625 "M" 0.95367431640625 "G" 953.67431640625 "T" 953674.31640625 -}}
{{- $number := regexFind "^[0-9.]+" (toString .) -}}
{{- $unit := trimPrefix $number (toString .) -}}
{{- mulf (float64 $number) (hasKey $factors $unit | ternary (get $factors $unit) 0.00000095367431640625) | floor | int64 }}
{{- end }}

{{/* The ports of some http(s) URLs, as a sorted list in JSON. */}}
{{- define "weir.portsOf" -}}
{{- $ports := list -}}
{{- range . }}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $ports = append $ports (int ($port | default (eq $url.scheme "https" | ternary "443" "80"))) -}}
{{- end }}
{{- $ports | uniq | sortAlpha | toJson }}
{{- end }}

{{/* What every container of ours has for its security. */}}
{{- define "weir.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}
