#!/usr/bin/env bash
# Makes an EMR cluster for the job. Then, on its master: yarn/train.sh. In the end: aws emr terminate-clusters.
set -euo pipefail
cd "$(dirname "$0")"
aws s3 cp bootstrap.sh {{ (emr.bucket ~ "/bootstrap.sh") | sh }}
aws emr create-cluster --region {{ emr.region | sh }} --name {{ ("sparknet-" ~ job.name) | sh }} \
  --release-label {{ emr.release | sh }} --applications Name=Hadoop --use-default-roles \
  --ec2-attributes {{ ("KeyName=" ~ emr.key) | sh }} \
  --instance-type {{ emr.machine | sh }} --instance-count {{ job.workers + 1 }} \
  --bootstrap-actions {{ ("Path=" ~ emr.bucket ~ "/bootstrap.sh") | sh }} \
  --log-uri {{ (emr.bucket ~ "/logs/") | sh }}
