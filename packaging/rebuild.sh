#!/usr/bin/env bash
# Build a release again from its source and compare it with what was published: one line, and an exit code.
#   0 the same bytes; 76 other bytes; 78 it could not be told, and why.
# Needs bash, git and Python >= 3.11; fetches one package, the build backend, by its hash.
set -euo pipefail

usage="usage: packaging/rebuild.sh [--ref TAG-OR-COMMIT | --tree FOLDER] [--backend FOLDER] FILE|SHA256SUMS
  FILE        a published wheel or sdist; or SHA256SUMS, for both of them at once
  --ref       what to build; without it, the tag that the file's name asks for
  --tree      build this unpacked source, an sdist for one, instead of a commit
  --backend   a folder with a flit_core that you trust, instead of the one fetched by hash"

say() { printf 'rebuild: %s\n' "$1"; }
unknown() { say "cannot tell: $1" && exit 78; }

ref='' tree='' backend=''
while (($#)); do
  case $1 in
    --ref) ref=${2:?$usage} && shift 2 ;;
    --tree) tree=$(cd "${2:?$usage}" && pwd) && shift 2 ;;
    --backend) backend=$(cd "${2:?$usage}" && pwd) && shift 2 ;;
    -h | --help) printf '%s\n' "$usage" && exit 0 ;;
    -*) printf '%s\n' "$usage" >&2 && exit 2 ;;
    *) break ;;
  esac
done
(($# == 1)) || { printf '%s\n' "$usage" >&2 && exit 2; }
published=$1
[[ -r $published ]] || unknown "$published cannot be read"
published=$(cd "$(dirname "$published")" && pwd)/$(basename "$published")
here=$(cd "$(dirname "$0")" && pwd)

python=${PYTHON:-}
for name in python3 python3.13 python3.12 python3.11 python3.14; do
  [[ -n $python ]] && break
  python=$("$name" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys.executable)' 2>/dev/null) || python=''
done
[[ -n $python ]] || unknown 'no Python >= 3.11 runs here'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What was published, as "hash name" lines: a list's, or the one file's own.
if [[ $(basename "$published") == SHA256SUMS* ]]; then
  grep -E '^[0-9a-f]{64} [ *]waitbus-[^/]+(\.whl|\.tar\.gz)$' "$published" | sed 's/^\(.\{64\}\) ./\1 /' >"$work/wanted" ||
    unknown "$published names no wheel and no sdist"
else
  "$python" - "$published" >"$work/wanted" <<'PYTHON'
import hashlib, pathlib, sys

path = pathlib.Path(sys.argv[1])
print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
PYTHON
fi

# The source: a folder as it is, or a commit of this repository; nothing of the working tree.
if [[ -n $tree ]]; then
  origin="the source in $(basename "$tree")"
  cp -Rp "$tree" "$work/source"
  epoch=''
else
  if [[ -z $ref ]]; then
    version=$(sed -n '1s/^[0-9a-f]* waitbus-\([^-]*\)\(-py3-none-any\.whl\|\.tar\.gz\)$/\1/p' "$work/wanted")
    [[ -n $version ]] || unknown "$(basename "$published") does not say which version it is: name it with --ref"
    ref=v$version
  fi
  commit=$(git -C "$here" rev-parse --quiet --verify "$ref^{commit}") || unknown "this repository has no $ref"
  origin="$ref (${commit:0:12})"
  epoch=$(git -C "$here" log -1 --format=%ct "$commit")
  mkdir "$work/source"
  git -C "$here/.." archive "$commit" | tar -x -f - -C "$work/source"
fi

# The one thing that takes part in the build, by hash; the list is the source's own when it has one.
if [[ -n $backend ]]; then
  builder=("$python" -s) path=$backend
  [[ -d $backend/flit_core ]] || unknown "$backend holds no flit_core"
  mkdir "$work/backend" && cp -R "$backend/flit_core" "$work/backend/" && path=$work/backend
else
  list=$work/source/packaging/build.txt
  [[ -r $list ]] || list=$here/build.txt
  "$python" -m venv "$work/venv" >"$work/log" 2>&1 || unknown "no environment could be made: $(tail -n 1 "$work/log")"
  "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
    --only-binary :all: -r "$list" >"$work/log" 2>&1 || unknown "the backend cannot be had: $(tail -n 1 "$work/log")"
  builder=("$work/venv/bin/python" -s) path=''
fi

# Nothing of this machine but PATH, and no network where the kernel lets us take it away.
alone=()
unshare --map-root-user --net true 2>/dev/null && alone=(unshare --map-root-user --net)
(
  cd "$work/source"
  ${alone[@]+"${alone[@]}"} env -i PATH="$PATH" HOME="$work" LC_ALL=C TZ=UTC PYTHONDONTWRITEBYTECODE=1 \
    ${path:+"PYTHONPATH=$path"} ${epoch:+"SOURCE_DATE_EPOCH=$epoch"} \
    "${builder[@]}" -m tools.build "$work/out" >"$work/log" 2>&1
) || unknown "the build from $origin failed: $(tail -n 1 "$work/log")"

"$python" - "$work/wanted" "$work/out" "$origin" <<'PYTHON'
import hashlib, pathlib, sys, zlib

wanted, out, origin = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]


def end(code, text):
    print(f"rebuild: {text}")
    sys.exit(code)


same = []
for line in wanted.read_text().splitlines():
    digest, name = line.split(" ", 1)
    built = out / name
    if not built.is_file():
        end(76, f"{name}: {origin} builds no such file but {', '.join(sorted(p.name for p in out.iterdir()))}")
    found = hashlib.sha256(built.read_bytes()).hexdigest()
    if found != digest:
        # What was published is what every usual Python builds; one linked against another zlib would not.
        end(76, f"OTHER BYTES: {name} was published as {digest}, {origin} builds {found} (with zlib {zlib.ZLIB_RUNTIME_VERSION})")
    same.append(f"{name} sha256 {digest}")
end(0, f"the same bytes from {origin}: {'; '.join(same)}")
PYTHON
