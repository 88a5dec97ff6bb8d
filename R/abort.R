# The one classed error constructor. `kind` is the suffix of the class kaichi_error_<kind>.
abort <- function(kind, ..., data = list()) {
  text <- paste0(..., collapse = "")
  condition <- structure(
    c(list(message = text, call = NULL), data),
    class = c(paste0("kaichi_error_", kind), "kaichi_error", "error", "condition")
  )
  stop(condition)
}

# Optional packages are asked for where they are needed, with the way to get them.
need_package <- function(package, why, source = c("CRAN", "Bioconductor")) {
  if (requireNamespace(package, quietly = TRUE)) return(invisible())
  source <- match.arg(source)
  install <- if (source == "CRAN") {
    sprintf('install.packages("%s")', package)
  } else {
    sprintf('BiocManager::install("%s")', package)
  }
  abort("package", "The package ", package, " is needed ", why, " and is not installed.\n  Install it with ", install, ".")
}

# Names in quotes for messages, cut after `most`.
quote_names <- function(x, most = 5L) {
  shown <- paste0("\"", utils::head(x, most), "\"", collapse = ", ")
  if (length(x) > most) shown <- paste0(shown, " and ", length(x) - most, " more")
  shown
}

# What was chosen for the user, and how to choose otherwise. The class lets scripts silence it and nothing else.
say_choice <- function(...) {
  message(structure(
    class = c("kaichi_message_choice", "message", "condition"), list(message = paste0(..., "\n"), call = NULL)
  ))
}
