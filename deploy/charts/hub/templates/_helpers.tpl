{{- define "fleet-hub.labels" -}}
app.kubernetes.io/name: fleet-hub
app.kubernetes.io/part-of: restic-fleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "fleet-hub.image" -}}
{{- $image := printf "%s/%s" (trimSuffix "/" .Values.image.registry) .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $image }}@{{ .Values.image.digest }}
{{- else -}}
{{ $image }}:{{ .Values.image.tag | default (printf "v%s" .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- /* Secret of a given certificate. */ -}}
{{- define "fleet-hub.tls" -}}
{{ .Values.tls.secret | default (ternary "fleet-hub-tls" "" .Values.tls.certManager.enabled) }}
{{- end }}

{{- /* The address as a URL has it: IPv6 in brackets. */ -}}
{{- define "fleet-hub.host" -}}
{{- if and (contains ":" .Values.address) (not (hasPrefix "[" .Values.address)) -}}
[{{ .Values.address }}]
{{- else -}}
{{ .Values.address }}
{{- end -}}
{{- end }}

{{- /* Where one listener is reached from outside: "" if that is not known. Arguments: root, name, port. */ -}}
{{- define "fleet-hub.url" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $port := index . 2 -}}
{{- $routed := "" -}}
{{- if $root.Values.ingress.enabled -}}{{- $routed = index $root.Values.ingress.hosts $name -}}{{- end -}}
{{- if $root.Values.gateway.enabled -}}{{- $routed = index $root.Values.gateway.hosts $name -}}{{- end -}}
{{- if index $root.Values.urls $name -}}
{{ index $root.Values.urls $name }}
{{- else if $routed -}}
https://{{ $routed }}:443
{{- else if $root.Values.address -}}
{{- if eq $root.Values.service.type "NodePort" -}}{{- $port = index $root.Values.service.nodePorts $name | default $port -}}{{- end -}}
https://{{ include "fleet-hub.host" $root }}:{{ $port | int }}
{{- end -}}
{{- end }}

{{- /* Settings in ConfigMap fleet-hub-settings, as YAML. */ -}}
{{- define "fleet-hub.settings" -}}
{{- $names := .Values.serverNames -}}
{{- with .Values.address }}{{- $names = append $names (trimAll "[]" .) }}{{- end -}}
{{- range list .Values.ingress .Values.gateway -}}
{{- if .enabled }}{{- $names = concat $names (values .hosts | compact | sortAlpha) }}{{- end -}}
{{- end -}}
{{- $link := include "fleet-hub.url" (list . "link" 8443) -}}
{{- $enrol := include "fleet-hub.url" (list . "enrol" 8445) -}}
{{- with $link }}
FLEET_HUB_LINK_URL: {{ . | quote }}
{{- end }}
{{- with $enrol }}
FLEET_HUB_ENROL_URL: {{ . | quote }}
{{- end }}
{{- with $names | uniq }}
FLEET_HUB_SERVER_NAME: {{ join "," . | quote }}
{{- end }}
{{- if ne .Values.logFormat "text" }}
FLEET_HUB_LOG_FORMAT: {{ .Values.logFormat }}
{{- end }}
{{- with .Values.authority.secret }}
FLEET_HUB_AUTHORITY_FROM: /etc/fleet-hub/authority/authority.pem
{{- end }}
{{- if include "fleet-hub.tls" . }}
FLEET_HUB_TLS_CERT: /etc/fleet-hub/tls/tls.crt
FLEET_HUB_TLS_KEY: /etc/fleet-hub/tls/tls.key
{{- /* An authority that signs more than this fleet must not make admins: the hub takes certificates of its own alone. */}}
{{- if .Values.authority.own }}
FLEET_HUB_TLS_CERT_CA: /etc/fleet-hub/tls/ca.crt
{{- else }}
FLEET_HUB_TLS_CA: /etc/fleet-hub/tls/ca.crt
{{- end }}
{{- end }}
{{- with .Values.oidc }}
{{- if .issuer }}
FLEET_HUB_OIDC_ISSUER: {{ .issuer | quote }}
FLEET_HUB_OIDC_CLIENT_ID: {{ .clientID | quote }}
{{- if .clientSecret.name }}
FLEET_HUB_OIDC_CLIENT_SECRET_FILE: /etc/fleet-hub/oidc/secret
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
