#!/bin/sh
# Installs what kaichi needs on Debian and Ubuntu; elsewhere configure says what is missing.
#   tools/setup.sh run    what building and running needs
#   tools/setup.sh test   also what the tests need
#   tools/setup.sh check  also what R CMD check and the manual need
#   tools/setup.sh coverage  what the tests need, and what counts the lines that they run
set -eu
cd "$(dirname "$0")/.."
level=${1:?"run, test, check or coverage"}

run_packages="r-base-core r-base-dev r-cran-matrix ca-certificates"
test_packages="r-cran-testthat r-cran-cli r-cran-ggplot2 r-cran-base64enc r-cran-knitr r-cran-rmarkdown r-cran-seurat r-cran-mixtools
  r-bioc-singlecellexperiment r-bioc-summarizedexperiment r-bioc-delayedarray r-bioc-hdf5array
  r-bioc-rhdf5 r-cran-hdf5r r-bioc-dropletutils
  r-bioc-biocparallel r-cran-batchtools"
check_packages="r-cran-roxygen2 devscripts pandoc tidy xz-utils"

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "No apt here: R and Rust are taken as they are." >&2
  exit 0
fi

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "Root is needed for: $*" >&2
    echo "Run it as root, then start again." >&2
    return 1
  fi
}

installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# The version apt would install, or nothing.
offered() {
  apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -v '(none)' || true
}

updated=
update() {
  [ -n "$updated" ] || as_root apt-get update -q
  updated=yes
}

# Installs those of its arguments that are missing.
install() {
  missing=
  for package in "$@"; do
    installed "$package" || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  update
  echo "Installing:$missing" >&2
  # shellcheck disable=SC2086 # a list
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}

# shellcheck disable=SC2086
install $run_packages

wanted=
case $level in
  run) ;;
  test) wanted=$test_packages ;;
  check) wanted="$test_packages $check_packages" ;;
  coverage)
    # The newest: it reads what older and somewhat newer compilers wrote.
    wanted="$test_packages r-cran-covr $(apt-cache search --names-only '^llvm-[0-9]+$' | sed 's/ .*//' | sort -rV | head -n 1)"
    ;;
  *) echo "run, test, check or coverage, not $level" >&2; exit 2 ;;
esac
if [ -n "$wanted" ]; then
  here=
  for package in $wanted; do
    installed "$package" || update
    if installed "$package" || [ -n "$(offered "$package")" ]; then
      here="$here $package"
    else
      echo "This distribution has no $package: tests that need it will be skipped." >&2
    fi
  done
  # shellcheck disable=SC2086
  install $here
fi

# ---- Rust ----

# The newest of the distribution's compilers is often not the one called rustc: Debian 12 has rustc-web, kept up for its
# browsers, Ubuntu has rustc-1.NN.
rust_flavour() {
  minimum=$(sed -n 's/.*rustc (>= *\([0-9.]*\)).*/\1/p' DESCRIPTION)
  numbered=$(apt-cache search --names-only '^cargo-1\.[0-9]+$' | sed 's/^cargo\(-[0-9.]*\) .*/\1/' | sort -rV)
  for flavour in "" -web $numbered; do
    rustc=$(offered "rustc$flavour")
    if [ -n "$rustc" ] && [ -n "$(offered "cargo$flavour")" ] && dpkg --compare-versions "$rustc" ge "$minimum"; then
      echo "rust$flavour"
      return
    fi
  done
}

if ! Rscript --vanilla tools/msrv.R >/dev/null 2>&1; then
  update
  flavour=$(rust_flavour)
  case $flavour in
    rust*)
      install "rustc${flavour#rust}" "cargo${flavour#rust}"
      ;;
    *)
      echo "No Rust that is new enough in this distribution: asking rustup.rs." >&2
      install curl
      curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default || {
        Rscript --vanilla tools/msrv.R
        exit 1
      }
      ;;
  esac
fi
bin=$(Rscript --vanilla tools/msrv.R)

# The formatter and the linter that belong to that compiler.
if [ "$level" != run ]; then
  has() { PATH="$bin:$PATH" cargo "$1" --version >/dev/null 2>&1; }
  if ! has fmt || ! has clippy; then
    owner=$(dpkg-query -S "$(readlink -f "$bin/rustc")" 2>/dev/null | sed -n 's/^\(rustc[^:]*\):.*/\1/p')
    if [ -n "$owner" ]; then
      suffix=${owner#rustc}
      install "rust$suffix-clippy" "rustfmt$suffix" || install rust-clippy rustfmt
    elif command -v "$bin/rustup" >/dev/null; then
      "$bin/rustup" component add clippy rustfmt
    fi
  fi
fi
