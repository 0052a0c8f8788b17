{{- define "kumulus.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kumulus.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kumulus.labels" -}}
{{ include "kumulus.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kumulus.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kumulus.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the account, or let the chart make one with serviceAccount.create" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the authority, in mode generate. */}}
{{- define "kumulus.caSecret" -}}
{{- default (printf "%s-ca" (include "kumulus.fullname" .)) .Values.certificates.caSecret -}}
{{- end -}}

{{/* The Secret with the controllers' certificate, in the other modes. */}}
{{- define "kumulus.certificateSecret" -}}
{{- if eq .Values.certificates.mode "existing" -}}
{{- required "certificates.existingSecret: name the Secret with tls.crt, tls.key and ca.crt" .Values.certificates.existingSecret -}}
{{- else -}}
{{- printf "%s-certificate" (include "kumulus.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* By which names the API server and Prometheus know the service. */}}
{{- define "kumulus.dnsNames" -}}
{{- $service := printf "%s.%s.svc" (include "kumulus.fullname" .) .Release.Namespace -}}
{{- list $service (printf "%s.cluster.local" $service) | toJson -}}
{{- end -}}

{{- define "kumulus.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* What does not go together ends the installation, with the reason. */}}
{{- define "kumulus.check" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.database.existingSecret) -}}
{{- fail "replicas: more than one controller needs a common ledger; name a Secret with a MariaDB URL in database.existingSecret" -}}
{{- end -}}
{{- if and (eq .Values.certificates.mode "certManager") (not .Values.certificates.certManager.issuerRef.name) -}}
{{- fail "certificates.certManager.issuerRef.name: name the cert-manager issuer" -}}
{{- end -}}
{{- end -}}

{{/* Restricted, as the Pod Security Standards have it. */}}
{{- define "kumulus.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
