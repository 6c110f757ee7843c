{{- define "fleet-spoke.labels" -}}
app.kubernetes.io/name: fleet-spoke
app.kubernetes.io/part-of: restic-fleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Of the whole cluster, so a second installation, in a namespace of its own, needs another name. */ -}}
{{- define "fleet-spoke.clusterRole" -}}
{{- if eq .Release.Namespace "restic-fleet-system" -}}
fleet-spoke
{{- else -}}
{{ printf "fleet-spoke-%s" .Release.Namespace }}
{{- end -}}
{{- end }}

{{- define "fleet-spoke.image" -}}
{{- $image := printf "%s/%s" (trimSuffix "/" .Values.image.registry) .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $image }}@{{ .Values.image.digest }}
{{- else -}}
{{ $image }}:{{ .Values.image.tag | default (printf "v%s" .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- /* Namespaces with a Role each, as JSON: those that are watched, and the operator's own. */ -}}
{{- define "fleet-spoke.namespaces" -}}
{{ append .Values.watchNamespaces .Release.Namespace | uniq | sortAlpha | toJson }}
{{- end }}

{{- define "fleet-spoke.namespaced" -}}
{{- include "fleet-spoke.rights.namespaced" . }}
{{- if .Values.rbac.exec }}
{{- include "fleet-spoke.rights.exec" . }}
{{- end }}
{{- end }}
