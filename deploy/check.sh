#!/usr/bin/env bash
# Builds every kustomization with a current kustomize and validates the result against Kubernetes' schemas.
# Needs `kubectl` and `kubernetes-validate` on the PATH; `make test` installs both.
set -euo pipefail
cd "$(dirname "$0")/kubernetes"
built=$(mktemp)
trap 'rm -f "$built"' EXIT
for kustomization in base overlays/*; do
  kubectl kustomize "$kustomization" > "$built"
  kubernetes-validate --strict --quiet "$built"
  echo "$kustomization: $(grep -c '^kind:' "$built") resources are valid"
done
