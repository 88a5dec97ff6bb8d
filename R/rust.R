# The only calls into Rust. Every rs_*() returns its value, or a condition object that unwrap() raises.
unwrap <- function(value) {
  if (!inherits(value, "kaichi_error")) return(value)
  if (inherits(value, "kaichi_error_interrupted")) {
    signalCondition(structure(class = c("interrupt", "condition"), list(message = "", call = NULL)))
    invokeRestart("abort")
  }
  stop(value)
}

rust_read_h5ad <- function(path, layer, batch) {
  unwrap(rs_read_h5ad(enc2utf8(path), layer, batch))
}
