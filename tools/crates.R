# Which crates of src/rust/Cargo.lock are compiled for the package; for tools/vendor.R and tools/licences.R, in src/rust.

targets <- c(
  "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "aarch64-apple-darwin",
  "x86_64-pc-windows-gnu"
)

cargo <- function(...) {
  out <- system2("cargo", c(...), stdout = TRUE)
  if (!is.null(attr(out, "status"))) stop("cargo ", ..1, " failed: its message is above.", call. = FALSE)
  out
}

# "name version" of each.
compiled_crates <- function() {
  compiled <- unlist(lapply(targets, function(target) {
    cargo("tree", "--locked", "--package", "kaichi", "--edges", "normal,build", "--target", target, "--prefix", "none", "--format", "{p}")
  }))
  compiled <- sub("^(\\S+) v(\\S+).*", "\\1 \\2", compiled)
  unique(compiled)
}

first_value <- function(lines, key) sub(".*\"(.*)\".*", "\\1", grep(paste0("^", key, " = \""), lines, value = TRUE)[1L])
