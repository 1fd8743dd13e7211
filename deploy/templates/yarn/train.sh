#!/usr/bin/env bash
# Trains on YARN, from a machine that has the cluster's Hadoop configuration: EMR's or Dataproc's master, say.
#
#   train.sh [ARGUMENTS of sparknet-run]
#
# The Spark is that of the environment, 4.x, whatever the cluster brings along; it takes Java 17 on every machine.
set -euo pipefail

environment={{ package.environment | sh }}
for java in /usr/lib/jvm/java-17-openjdk-amd64 /usr/lib/jvm/java-17-amazon-corretto.x86_64 /usr/lib/jvm/jre-17; do
  [ ! -x "$java/bin/java" ] || break
done
export JAVA_HOME=$java HADOOP_CONF_DIR=${HADOOP_CONF_DIR:-/etc/hadoop/conf} PYSPARK_PYTHON=$environment/bin/python
unset SPARK_HOME
exec "$environment/bin/sparknet-run" {{ job.model | sh }} --master yarn --workers {{ job.workers }} \
  --conf spark.executor.instances={{ job.workers }} --conf spark.executor.cores={{ executor.cores }} \
  --conf spark.executor.memory={{ executor.java | sh }} --conf spark.executor.memoryOverhead={{ executor.python | sh }} \
  --conf spark.dynamicAllocation.enabled=false \
  --conf spark.executorEnv.JAVA_HOME="$java" --conf spark.yarn.appMasterEnv.JAVA_HOME="$java" \
{% if job.snapshots %}
  --snapshot-dir {{ job.snapshots | sh }} \
{% endif %}
{% for argument in job.arguments %}
  {{ argument | sh }} \
{% endfor %}
  "$@"
