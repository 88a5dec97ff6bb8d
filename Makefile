# make demo      install what is missing (Debian, Ubuntu), build, and assign the guides of the bundled file
# make test      the same set-up, then every check: format, lints, Rust tests, wrappers, R tests
# make fuzz-smoke  a few thousand files that are nearly right, of every format, the same ones each time
# make r-check   R CMD check on the source package: installation, code, documentation and examples; `make test` has the rest
# make check     R CMD check as CRAN does it on the source package, with its crates vendored
# make document  man/ and NAMESPACE from the roxygen comments
# make wrappers  R/extendr-wrappers.R from the Rust functions
# make vendor    src/rust/vendor.tar.xz, for an installation without network
# make licences  inst/AUTHORS and LICENSE.note from the crates
# make dist      .dist/kaichi_<version>.tar.gz, with the crates, which installs without network
# make dist-check  installs that without network
# make clean     remove everything that was built
#
# Everything is built inside the checkout; cargo keeps its downloads where it always does.

LIB = $(CURDIR)/.lib
MANIFEST = --manifest-path src/rust/Cargo.toml --locked

export R_LIBS := $(LIB)
export CARGO_TARGET_DIR ?= $(CURDIR)/src/rust/target

# The cargo that configure would take too.
WITH_RUST = PATH="$$(Rscript --vanilla tools/msrv.R):$$PATH"
CARGO = $(WITH_RUST) cargo

.PHONY: demo test format-check lint rust-test fuzz-smoke wrappers-check r-test r-check setup setup-test setup-check setup-coverage install check coverage coverage-r coverage-rust document wrappers vendor licences dist dist-check clean

demo: setup
	$(MAKE) install
	Rscript tools/demo.R

# One failing check does not hide the others.
test: setup-test
	$(MAKE) --keep-going format-check lint rust-test fuzz-smoke wrappers-check r-test r-check

setup:
	tools/setup.sh run

setup-test:
	tools/setup.sh test

setup-check:
	tools/setup.sh check

setup-coverage:
	tools/setup.sh coverage

install:
	mkdir -p $(LIB)
	NOT_CRAN=true R CMD INSTALL --no-multiarch --library=$(LIB) .

format-check:
	$(CARGO) fmt --all --check --manifest-path src/rust/Cargo.toml

lint:
	$(CARGO) clippy --workspace --all-targets $(MANIFEST) -- -D warnings
	@if $(WITH_RUST) command -v cargo-deny >/dev/null; then \
	  $(CARGO) deny --manifest-path src/rust/Cargo.toml check licenses bans sources; \
	else echo "cargo-deny is not here: licences and duplicates of crates are not checked."; fi

# The binding holds no logic and links only into R: the R tests are its tests.
rust-test:
	$(CARGO) test --workspace --exclude kaichi $(MANIFEST)

# Without seed files: what HDF5 makes of changed bytes is its own, and another thing in each version.
FUZZ = --manifest-path src/rust/fuzz/Cargo.toml --locked
fuzz-smoke:
	$(CARGO) build $(FUZZ)
	@for reader in h5ad h5mu tenx molecules mtx table guide_table; do \
	  $(CARGO_TARGET_DIR)/debug/kaichi-fuzz $$reader smoke 800 $(CARGO_TARGET_DIR)/finds || exit 1; \
	done

wrappers-check: install
	Rscript tools/wrappers.R --check

r-test: install
	NOT_CRAN=true Rscript tools/test.R

# Warnings fail it, too. Tests and vignettes have their own places.
r-check: install
	$(call sources,.check)
	rm -f .check/source/src/rust/vendor.tar.xz
	cd .check && R CMD build --no-build-vignettes source
	cd .check && NOT_CRAN=true _R_CHECK_FORCE_SUGGESTS_=false R CMD check --no-manual --no-tests --ignore-vignettes kaichi_*.tar.gz
	@! grep '^Status: .*WARNING' .check/kaichi.Rcheck/00check.log

# From a copy, which covr compiles, instruments and installs in a place of its own.
coverage: setup-coverage
	$(MAKE) --keep-going coverage-r coverage-rust

coverage-r:
	$(call sources,.check/coverage)
	cd .check/coverage/source && NOT_CRAN=true Rscript tools/coverage.R r

coverage-rust:
	$(WITH_RUST) Rscript --vanilla tools/coverage.R rust

check: setup-check
	$(MAKE) vendor
	$(call sources,.check)
	cd .check && R CMD build source
	cd .check && env -u CARGO_TARGET_DIR _R_CHECK_FORCE_SUGGESTS_=false _R_CHECK_CRAN_INCOMING_REMOTE_=false R CMD check --no-manual --as-cran kaichi_*.tar.gz

document: setup-check install
	Rscript -e 'roxygen2::roxygenise(load_code = roxygen2::load_installed)'

wrappers: install
	Rscript tools/wrappers.R

vendor: src/rust/vendor.tar.xz

src/rust/vendor.tar.xz: src/rust/Cargo.lock
	$(WITH_RUST) Rscript --vanilla tools/vendor.R

licences:
	$(WITH_RUST) Rscript --vanilla tools/licences.R

# R CMD build copies gigabytes of what was built, and fails where a build goes on meanwhile: it gets the sources only.
SOURCES = tar --exclude=./.git --exclude=./.lib --exclude=./.check --exclude=./.dist --exclude=./src/rust/target \
  --exclude=./src/rust/fuzz -cf - .
define sources
rm -rf $(1) && mkdir -p $(1)/source
$(SOURCES) | tar -xf - -C $(1)/source
endef

dist: vendor
	$(WITH_RUST) Rscript --vanilla tools/licences.R --check
	$(call sources,.dist)
	cd .dist && R CMD build $(BUILD_FLAGS) source

# unshare needs root, or a kernel that lets users have name spaces.
dist-check: dist
	mkdir .dist/lib
	env -u CARGO_TARGET_DIR unshare --net R CMD INSTALL --library=.dist/lib .dist/kaichi_*.tar.gz
	R_LIBS=$(CURDIR)/.dist/lib Rscript --vanilla -e 'library(kaichi)' -e 'print(assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi")))'

clean:
	./cleanup
	rm -rf src/rust/target src/rust/vendor.tar.xz .lib .check .dist
