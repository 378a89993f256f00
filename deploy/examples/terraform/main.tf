# Terraform or OpenTofu. Secrets do not pass through it: whatever does stands in its state.
terraform {
  required_version = ">= 1.6"
  required_providers {
    helm = {
      source  = "hashicorp/helm"
      version = ">= 3.0"
    }
  }
}

variable "image_digest" {
  type        = string
  description = "The image's digest, as sha256:..."
}

resource "helm_release" "weir" {
  name             = "weir"
  namespace        = "weir"
  create_namespace = true
  chart            = "${path.module}/../../../helm/weir"

  atomic  = true
  timeout = 1200 # a rollout waits for streams: longer than the grace period of a pod

  values = [
    file("${path.module}/values.yaml"),
    yamlencode({ image = { digest = var.image_digest } }),
  ]
}
