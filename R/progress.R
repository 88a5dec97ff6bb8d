# Long work shows itself: a bar of the package cli, which the loop in Rust that waits for the work moves on.

# What is shown, between the calls of Rust; `id` is the bar of cli, which evaluates its format here.
shown <- new.env(parent = baseenv())

# `code` with a bar, if `verbose` and the session want one.
with_progress <- function(verbose, doing, code) {
  if (!shows_progress(verbose)) return(code)
  before <- as.list(shown)
  shown$doing <- doing
  shown$id <- NULL
  rust_show_progress(TRUE)
  on.exit({
    rust_show_progress(!is.null(before$doing))
    if (!is.null(shown$id)) cli::cli_progress_done(id = shown$id, .envir = shown)
    shown$doing <- before$doing
    shown$id <- before$id
  })
  force(code)
}

check_verbose <- function(verbose) {
  if (is.null(verbose) || isTRUE(verbose) || isFALSE(verbose)) return(invisible())
  abort("argument", "`verbose` must be TRUE, FALSE or NULL, not ", describe(verbose), ".")
}

# NULL is a person at a console; knitr would put every state of the bar into the document.
shows_progress <- function(verbose) {
  if (isTRUE(verbose)) {
    need_package("cli", "to show progress (`verbose = TRUE`)")
    return(TRUE)
  }
  is.null(verbose) && interactive() && !isTRUE(getOption("knitr.in.progress")) && requireNamespace("cli", quietly = TRUE)
}

# Called by Rust, ten times a second, on R's thread. FALSE stops the work; no error may pass.
progress_tick <- function(done, total) {
  tryCatch(
    {
      if (total > 0) show_progress(done, total)
      TRUE
    },
    interrupt = function(condition) FALSE,
    error = function(condition) TRUE
  )
}

show_progress <- function(done, total) {
  if (is.null(shown$id)) {
    # cli waits two seconds (its option cli.progress_show_after) before it shows a bar.
    shown$id <- cli::cli_progress_bar(
      shown$doing, total = total, format = "{cli::pb_name}{cli::pb_bar} {cli::pb_current}/{cli::pb_total}, {cli::pb_eta_str}",
      clear = TRUE, .auto_close = FALSE, .envir = shown
    )
  }
  cli::cli_progress_update(set = done, total = total, id = shown$id, .envir = shown)
}
