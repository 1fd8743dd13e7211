#!/usr/bin/env bash
# Spark's standalone cluster: a master and workers, on other hosts by ssh.
#
#   cluster.sh install | start | stop | status | train [ARGUMENTS]
#
# `install` puts the package into the same environment on every host.
set -euo pipefail

environment={{ package.environment | sh }}
requirement={{ package.requirement | sh }}
folder={{ standalone.folder | sh }}
master={{ standalone.master | sh }}
port={{ standalone.port }}
workers=({% for host in standalone.workers %}{{ host | sh }}{% if not loop.last %} {% endif %}{% endfor %})
url=spark://$master:$port

# on HOST [ARGUMENTS]: runs the script on standard input there.
on() {
  local host=$1
  shift
  if [ "$host" = localhost ]; then
    bash -s -- "$@"
  else
    ssh -o BatchMode=yes "$host" "bash -s -- $(printf '%q ' "$@")"
  fi
}

# install HOST
install() {
  on "$1" "$environment" "$requirement" <<'EOF'
set -eu
[ -x "$1/bin/python" ] || python3 -m venv "$1"
"$1/bin/pip" install --quiet "$2"
EOF
}

# launch HOST NAME CLASS [ARGUMENTS]: a daemon of Spark's, unless it runs already.
launch() {
  on "$1" "$environment" "$folder" "${@:2}" <<'EOF'
set -eu
environment=$1 folder=$2 name=$3 class=$4
shift 4
mkdir -p "$folder"
if [ -f "$folder/$name.pid" ] && kill -0 "$(cat "$folder/$name.pid")" 2>/dev/null; then
  echo "$name runs already on $(hostname)"
  exit
fi
SPARK_HOME=$("$environment/bin/python" -c 'import importlib.util as u; print(u.find_spec("pyspark").submodule_search_locations[0])')
export SPARK_HOME SPARK_LOCAL_DIRS="$folder/local"
nohup "$SPARK_HOME/bin/spark-class" "org.apache.spark.deploy.$class" "$@" </dev/null >>"$folder/$name.log" 2>&1 &
echo $! >"$folder/$name.pid"
echo "$name starts on $(hostname): $folder/$name.log"
EOF
}

# end HOST NAME: the daemon, and what it has started.
end() {
  on "$1" "$folder" "$2" <<'EOF'
set -eu
file=$1/$2.pid
[ -f "$file" ] || exit 0
process=$(cat "$file")
kill "$process" 2>/dev/null || true
for _ in $(seq 100); do
  case $(ps -o stat= -p "$process") in '' | Z*) break ;; esac
  sleep 0.1
done
kill -9 "$process" 2>/dev/null || true
rm -f "$file"
echo "$2 ended on $(hostname)"
EOF
}

# show HOST NAME
show() {
  on "$1" "$folder" "$2" <<'EOF'
if kill -0 "$(cat "$1/$2.pid" 2>/dev/null)" 2>/dev/null; then
  echo "$2 runs on $(hostname)"
else
  echo "$2 does not run on $(hostname)"
fi
EOF
}

case ${1:-} in
  install)
    printf '%s\n' "$master" "${workers[@]}" | sort -u | while read -r host; do
      install "$host" </dev/null
    done
    ;;
  start)
    launch "$master" master master.Master --host "$master" --port "$port"
    for number in "${!workers[@]}"; do
      launch "${workers[$number]}" "worker$number" worker.Worker --cores {{ executor.cores }} --memory {{ executor.java | sh }} \
        --work-dir "$folder/worker$number" "$url"
    done
    echo "$url"
    ;;
  stop)
    for number in "${!workers[@]}"; do
      end "${workers[$number]}" "worker$number"
    done
    end "$master" master
    ;;
  status)
    show "$master" master
    for number in "${!workers[@]}"; do
      show "${workers[$number]}" "worker$number"
    done
    ;;
  train)
    export PYSPARK_PYTHON="$environment/bin/python"
    exec "$environment/bin/sparknet-run" {{ job.model | sh }} --master "$url" --workers {{ job.workers }} \
      --conf spark.executor.cores={{ executor.cores }} --conf spark.executor.memory={{ executor.java | sh }} \
{% if job.snapshots %}
      --snapshot-dir {{ job.snapshots | sh }} \
{% endif %}
{% for argument in job.arguments %}
      {{ argument | sh }} \
{% endfor %}
      "${@:2}"
    ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
