{{/* Generated from the code by `make generate`; edit that, not this file. */}}
{{- define "kumulus.rights.cluster" -}}
- apiGroups:
  - ''
  resources:
  - events
  verbs:
  - create
  - patch
- apiGroups:
  - kumulus.dev
  resources:
  - trashitems
  - volumes
  verbs:
  - create
  - delete
  - get
  - list
  - patch
  - watch
- apiGroups:
  - kumulus.dev
  resources:
  - clusters
  - hosts
  - images
  - l2networks
  - l3networks
  - primarystorages
  - virtualmachines
  verbs:
  - delete
  - get
  - list
  - patch
  - watch
- apiGroups:
  - kumulus.dev
  resources:
  - backupstorages
  - diskofferings
  - instanceofferings
  - zones
  verbs:
  - get
  - list
  - patch
  - watch
- apiGroups:
  - kumulus.dev
  resources:
  - backupstorages/status
  - clusters/status
  - diskofferings/status
  - hosts/status
  - images/status
  - instanceofferings/status
  - l2networks/status
  - l3networks/status
  - primarystorages/status
  - trashitems/status
  - virtualmachines/status
  - volumes/status
  - zones/status
  verbs:
  - patch
{{- end -}}
{{- define "kumulus.rights.home" -}}
- apiGroups:
  - ''
  resources:
  - configmaps
  verbs:
  - create
- apiGroups:
  - ''
  resources:
  - configmaps
  resourceNames:
  - kumulus-ring
  verbs:
  - get
  - update
  - watch
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - create
  - delete
  - get
  - list
  - patch
{{- end -}}
{{- define "kumulus.rights.admission" -}}
- apiGroups:
  - ''
  resources:
  - namespaces
  verbs:
  - get
{{- end -}}
{{- define "kumulus.webhook" -}}
rules:
- apiGroups:
  - kumulus.dev
  apiVersions:
  - v1alpha1
  resources:
  - backupstorages
  - clusters
  - diskofferings
  - hosts
  - images
  - instanceofferings
  - l2networks
  - l3networks
  - primarystorages
  - trashitems
  - virtualmachines
  - volumes
  - zones
  operations:
  - CREATE
  - UPDATE
  - DELETE
  scope: '*'
matchPolicy: Equivalent
objectSelector: {}
sideEffects: None
timeoutSeconds: 5
admissionReviewVersions:
- v1
matchConditions:
- name: spec-changes
  expression: request.operation != "UPDATE" || object.?spec != oldObject.?spec
{{- end -}}
