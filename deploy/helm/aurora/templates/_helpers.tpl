{{/* Prefix of all names: the release's, plus the chart's unless the former contains it. */}}
{{- define "aurora.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "aurora.operator" -}}
{{- printf "%s-operator" (include "aurora.fullname" .) -}}
{{- end -}}

{{- define "aurora.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aurora.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that the operator manages, as JSON; an empty list stands for all. */}}
{{- define "aurora.namespaces" -}}
{{- if has "*" .Values.watchNamespaces -}}
[]
{{- else -}}
{{- default (list .Release.Namespace) .Values.watchNamespaces | toJson -}}
{{- end -}}
{{- end -}}

{{/* Prefix of the names of cluster-scoped policies: several namespaces may have a release. */}}
{{- define "aurora.policy" -}}
{{- printf "%s-%s" (include "aurora.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* Restricts a policy's binding to the managed namespaces. */}}
{{- define "aurora.policyNamespaces" -}}
{{- with include "aurora.namespaces" . | fromJsonArray -}}
matchResources:
  namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values:
          {{- toYaml . | nindent 10 }}
{{- end -}}
{{- end -}}

{{/* The Lease by which the operator's replicas elect one: one for each set of watched namespaces. */}}
{{- define "aurora.lease" -}}
aurora-operator
{{- with include "aurora.namespaces" . | fromJsonArray -}}
-{{ . | sortAlpha | uniq | join "," | sha256sum | trunc 10 }}
{{- end -}}
{{- end -}}

{{/*
Where the API server is, as JSON: CIDRs; an empty list if that is unknown. Network plugins compare
the address of the Service, that of an endpoint, or both.
*/}}
{{- define "aurora.apiServerAddresses" -}}
{{- $found := .Values.networkPolicy.apiServerAddresses -}}
{{- if not $found -}}
{{- $addresses := list -}}
{{- range (lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "").items -}}
{{- if eq (dig "metadata" "labels" "kubernetes.io/service-name" "" .) "kubernetes" -}}
{{- range .endpoints -}}
{{- $addresses = concat $addresses .addresses -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $addresses -}}
{{- with lookup "v1" "Service" "default" "kubernetes" -}}
{{- $addresses = concat $addresses .spec.clusterIPs -}}
{{- end -}}
{{- end -}}
{{- range $addresses | uniq | sortAlpha -}}
{{- $found = append $found (printf "%s/%s" . (ternary "128" "32" (contains ":" .))) -}}
{{- end -}}
{{- end -}}
{{- default list $found | toJson -}}
{{- end -}}

{{/* Selects the operator's pods; immutable. */}}
{{- define "aurora.selectorLabels" -}}
app.kubernetes.io/name: aurora
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "aurora.labels" -}}
{{ include "aurora.labelsWith" (list . (dict)) }}
{{- end -}}

{{/* Takes a list of the root context and further labels, which win over commonLabels. */}}
{{- define "aurora.labelsWith" -}}
{{- $root := index . 0 -}}
{{ include "aurora.selectorLabels" $root }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with merge (dict) (index . 1) $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A component's image; takes a list of the root context and the component. A digest wins. */}}
{{- define "aurora.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* Pod Security `restricted`, and a read-only root file system. */}}
{{- define "aurora.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "aurora.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end -}}
