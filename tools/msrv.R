# Finds a Rust that is new enough. The minimum stands in SystemRequirements of DESCRIPTION.
# Sourced by tools/config.R and, installed, by install_cli(); as a script it prints the directory of cargo and rustc, or fails saying what to install.

minimum_rust <- function(description) {
  requirements <- read.dcf(description, "SystemRequirements")[1L]
  package_version(sub(".*rustc \\(>= *([0-9.]+)\\).*", "\\1", requirements))
}

# "" is the PATH as it is. Then rustup's place, which R started from a desktop often does not have on its PATH,
# and the versioned compilers of Ubuntu.
rust_places <- function() {
  home <- Sys.getenv(if (.Platform$OS.type == "windows") "USERPROFILE" else "HOME")
  cargo_home <- Sys.getenv("CARGO_HOME", file.path(home, ".cargo"))
  unique(c("", file.path(c(cargo_home, file.path(home, ".cargo")), "bin"), rev(Sys.glob("/usr/lib/rust-*/bin"))))
}

# The version a program reports, or NULL where it is missing or does not run (a rustup without a toolchain).
program_version <- function(place, name) {
  program <- if (nzchar(place)) file.path(place, name) else name
  said <- suppressWarnings(tryCatch(
    system2(program, "--version", stdout = TRUE, stderr = FALSE),
    error = function(e) character()
  ))
  number <- regmatches(said, regexpr("[0-9]+\\.[0-9]+\\.[0-9]+", said))
  if (length(number)) package_version(number[1L])
}

rust_missing <- function(found, minimum) {
  problem <- if (length(found)) {
    paste0("rustc ", max(found), " is too old: kaichi needs rustc and cargo ", minimum, " or newer.")
  } else {
    paste0("cargo and rustc were not found: kaichi needs them in version ", minimum, " or newer.")
  }
  paste(
    c(
      problem,
      "  Debian 13, Ubuntu 25.10: apt-get install cargo",
      "  Debian 12:               apt-get install cargo-web",
      "  Ubuntu 22.04, 24.04:     apt-get install the newest that `apt-cache search '^cargo-1'` lists",
      "  Fedora:                  dnf install cargo",
      "  macOS:                   brew install rust",
      "  anywhere:                https://rustup.rs"
    ),
    collapse = "\n"
  )
}

# The directory to put before the PATH ("" for none).
rust_bin <- function(description = "DESCRIPTION") {
  minimum <- minimum_rust(description)
  found <- list()
  for (place in rust_places()) {
    rustc <- program_version(place, "rustc")
    if (is.null(rustc) || is.null(program_version(place, "cargo"))) next
    if (rustc >= minimum) return(place)
    found <- c(found, list(rustc))
  }
  stop(rust_missing(do.call(c, found), minimum), call. = FALSE)
}

if (sys.nframe() == 0L) {
  place <- tryCatch(rust_bin(), error = function(e) {
    message(conditionMessage(e))
    quit(status = 1L)
  })
  cat(if (nzchar(place)) place else dirname(Sys.which("cargo")), "\n", sep = "")
}
