#!/bin/sh
# Runs restic with the arguments that it is given, passes its output on as it comes, and writes one JSON object about
# the run to the termination log, where the controller reads the result. Constant text: nothing of a resource is ever
# put into it. Needs a POSIX shell, awk and mkfifo.
set -u
log=${TERMINATION_LOG:-/dev/termination-log}
work=$(mktemp -d "${TMPDIR:-/tmp}/run.XXXXXX") || exit 1
mkfifo "$work/out" "$work/err" || exit 1

# restic follows links on the way to a path that it is given: one out of the volume would lead to the credentials.
behind=
for argument in "$@"; do
  if [ -n "$behind" ] && [ -n "${FLEET_SOURCE_DIR:-}" ] && [ "$argument" != "$FLEET_SOURCE_DIR" ]; then
    # A folder that cannot be entered is restic's to complain about.
    folder=$(cd -P -- "${argument%/*}/" 2>/dev/null && pwd -P) || continue
    case $folder/ in
      "$FLEET_SOURCE_DIR"/*) ;;
      *)
        printf '{"exitCode":1,"fatal":{"message":"a path leaves the volume by a symbolic link: correct spec.source.pvc.paths"}}\n' >"$log"
        echo "a path leaves the volume by a symbolic link: $argument" >&2
        rm -rf "$work"
        exit 1
        ;;
    esac
  fi
  if [ "$argument" = -- ]; then behind=yes; fi
done

# restic's locks name their holder. Needs HOME as well, and a user that the image does not know.
if [ -n "${FLEET_CLUSTER:-}" ]; then export USER="fleet:$FLEET_CLUSTER:${FLEET_OPERATION:-}:0"; fi

# A file that is there and cannot be read would look like storage that refuses.
refuse_unreadable() {
  if [ ! -e "$1" ] || [ -r "$1" ]; then return; fi
  printf '{"exitCode":1,"fatal":{"message":"open %s: permission denied: user %d of the pod cannot read it"}}\n' "$1" "$(id -u)" >"$log"
  echo "user $(id -u) cannot read $1" >&2
  rm -rf "$work"
  exit 1
}

# Only files that the Secret really holds: restic does not begin with the name of one that is missing.
for named in ${FLEET_CREDENTIAL_FILES:-}; do
  refuse_unreadable "${named#*=}"
  if [ -s "${named#*=}" ]; then export "${named?}"; fi
done

# ssh takes no key that others may read, and the mounted one is readable for any user of the pod.
for pair in ${FLEET_PRIVATE_FILES:-}; do
  refuse_unreadable "${pair%%=*}"
  if [ -s "${pair%%=*}" ]; then (umask 077 && cat "${pair%%=*}" >"${pair#*=}") || exit 1; fi
done

# Whether this is a restore that deletes files, and not only a preview of one. The value of an option may read like another.
deletes() {
  if [ "$1" != restore ]; then return 1; fi
  deletes=
  value=
  for argument in "$@"; do
    if [ -n "$value" ]; then
      value=
      continue
    fi
    case $argument in
      --include | --exclude | --exclude-xattr | --target) value=yes ;;
      --dry-run) return 1 ;;
      --delete) deletes=yes ;;
    esac
  done
  [ -n "$deletes" ]
}

# Keeps the last summary, and counts what a dry run would do; everything is passed on.
awk -v keep="$work" '
  { print; fflush() }
  /^\{"message_type":"summary"/ { summary = $0 }
  /^\{"message_type":"verbose_status","action":"(restored|updated|unchanged)"/ {
    split($0, part, "\"")
    count[part[8]]++
    counted = 1
  }
  END {
    if (summary != "" && length(summary) < 1500) print summary > (keep "/summary")
    if (counted) {
      printf "{\"restored\":%d,\"updated\":%d,\"unchanged\":%d}", count["restored"], count["updated"], count["unchanged"] > (keep "/actions")
    }
  }
' <"$work/out" &
reader_out=$!

# Keeps the last fatal error and the last words of ssh, counts files that there was trouble with and names the first five, and
# looks for signs of a lost lock. Of a restore it counts those that are there and lack only an owner or attributes which the
# pod may not set: they are not among the five, and it notes where there was no other trouble.
awk -v keep="$work" '
  { print; fflush() }
  /^\{"message_type":"exit_error"/ { fatal = $0 }
  # The scan, which only foretells the size, names again what the reading names.
  /^\{"message_type":"error"/ && !/"during":"scan"/ {
    errors++
  }
  /^\{"message_type":"error","error":\{"message":"(xattr\.L(Set|Remove)|lchown) .*: (operation not permitted|permission denied)"\},"during":"restore"/ {
    unset++
    name = $0
    sub(/: (operation not permitted|permission denied)"\},"during":"restore".*$/, "", name)
    name = (name ~ /"message":"lchown /) ? "owner" : substr(name, match(name, / [^ ]*$/) + 1, 40)
    gsub(/[^A-Za-z0-9._-]/, "?", name)
    if (!(name in named) && ++names <= 5) list = list (list == "" ? "" : ",") "\"" name "\""
    named[name] = 1
    next
  }
  /^\{"message_type":"error"/ && !/"during":"scan"/ {
    if (++listed <= 5 && length($0) < 300) items = items (items == "" ? "" : ",") $0
  }
  /^subprocess ssh: / {
    ssh = substr($0, 17, 300)
    gsub(/[\\"]/, "", ssh)
    gsub(/[^ -~]/, " ", ssh)
  }
  # The words of what restic reads from: restic names only its exit code.
  /^subprocess \/fleet-tools\/fleet-spoke: / {
    source = substr($0, 38, 400)
    gsub(/[\\"]/, "", source)
    gsub(/[^ -~]/, " ", source)
  }
  /unable to refresh lock|failed to refresh lock|error while unlocking/ { lock = 1 }
  END {
    if (fatal != "" && length(fatal) < 900) print fatal > (keep "/fatal")
    if (ssh != "") print "\"" ssh "\"" > (keep "/ssh")
    if (source != "") print "\"" source "\"" > (keep "/source")
    print errors + 0 > (keep "/errors")
    if (unset > 0) print "{\"files\":" unset ",\"names\":[" list "]}" > (keep "/unset")
    if (errors > 0 && errors == unset && index(fatal, "\"message\":\"Fatal: There were " errors " errors\\n\"}"))
      print "yes" > (keep "/content")
    print "[" items "]" > (keep "/items")
    print (lock ? "true" : "false") > (keep "/lock")
  }
' <"$work/err" >&2 &
reader_err=$!

# The container that the data comes from ends with this one.
if [ -n "${FLEET_STREAM:-}" ]; then "$FLEET_STREAM" stream hold & fi

# The readers end when nobody writes any more: these stay open over both runs of a restore that deletes.
exec 3>"$work/out" 4>"$work/err"
restic=
stopped=
trap 'stopped=yes; if [ -n "$restic" ]; then kill -TERM "$restic" 2>/dev/null; fi' TERM INT

# Runs restic with these arguments, and leaves its exit code in `code`. Standard output is the caller's.
run() {
  restic "$@" 2>&4 3>&- 4>&- &
  restic=$!
  # The signal may have come before there was a process to pass it on to.
  if [ -n "$stopped" ]; then kill -TERM "$restic" 2>/dev/null; fi
  code=0
  wait "$restic" || code=$?
  # A signal ends `wait` early: restic still has its lock to remove.
  while kill -0 "$restic" 2>/dev/null; do
    code=0
    wait "$restic" || code=$?
  done
}

# Of a folder that it cannot load restic knows no file: it deletes all that is in the target, goes on, and fails only at its
# end. A dry run fails by the same, and writes nothing. restic takes the last of two values of --verify.
code=0
untouched=false
if deletes "$@"; then
  echo "previewing the restore: it deletes, so nothing is written unless all folders of the snapshot can be read" >&2
  run "$@" --verify=false --dry-run >/dev/null
  # The preview may have ended well just as the signal came: nothing was done, which is no success.
  if [ "$code" = 0 ] && [ -n "$stopped" ]; then code=130; fi
  if [ "$code" != 0 ] || [ -n "$stopped" ]; then untouched=true; fi
fi
if [ "$untouched" = false ]; then run "$@" >&3; fi
exec 3>&- 4>&-
wait "$reader_out" "$reader_err"

# The files are there, and another attempt would do no better.
if [ "$code" = 1 ] && [ -s "$work/content" ] && [ -s "$work/summary" ]; then code=0; fi

# For the hooks after this: absent where the container ends before this line.
if [ -n "${FLEET_OUTCOME:-}" ]; then echo "$code" >"$FLEET_OUTCOME.new" && mv "$FLEET_OUTCOME.new" "$FLEET_OUTCOME"; fi

# Whether the kernel has killed a process of this container for want of memory: by cgroup v2, or v1. The shell and the
# readers may live on when restic does not.
memory=false
groups=${CGROUP_DIR:-/sys/fs/cgroup}
for counts in "$groups/memory.events" "$groups/memory/memory.oom_control"; do
  if [ -r "$counts" ] && awk '$1 == "oom_kill" && $2 > 0 { found = 1 } END { exit !found }' "$counts"; then memory=true; fi
done

# What the readers have left, each one line: read without a process of its own.
piece() {
  piece=
  if [ -s "$work/$1" ]; then IFS= read -r piece <"$work/$1" || true; fi
  printf '"%s":%s,' "$2" "${piece:-$3}"
}
{
  printf '{"exitCode":%d,"outOfMemory":%s,' "$code" "$memory"
  piece summary summary null
  piece fatal fatal null
  piece ssh ssh null
  piece source source null
  piece errors errors 0
  piece lock lockLost false
  piece items items '[]'
  piece unset unset null
  piece actions actions null
  printf '"untouched":%s}\n' "$untouched"
} >"$log"
rm -rf "$work"
exit "$code"
