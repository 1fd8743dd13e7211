#!/usr/bin/env bash
# Makes a Dataproc cluster for the job. Then, on its master: yarn/train.sh. In the end: gcloud dataproc clusters delete.
set -euo pipefail
cd "$(dirname "$0")"
gcloud storage cp init.sh {{ (dataproc.bucket ~ "/init.sh") | sh }}
gcloud dataproc clusters create {{ ("sparknet-" ~ job.name) | sh }} --project {{ dataproc.project | sh }} \
  --region {{ dataproc.region | sh }} --image-version {{ dataproc.image | sh }} --num-workers {{ job.workers }} \
  --master-machine-type {{ dataproc.machine | sh }} --worker-machine-type {{ dataproc.machine | sh }} \
  --initialization-actions {{ (dataproc.bucket ~ "/init.sh") | sh }}
