# Calls to .h5ad and .h5mu: the output of assign_guides(), block by block or from memory, and write_calls().

check_output <- function(x, output, overwrite) {
  if (!is.character(x) && !is_sheet(x)) {
    abort(
      "argument", "`output` is for the path of a file, but `x` is of class ", quote_names(class(x)), ".\n",
      "  Leave `output` out, and write the result with write_calls()."
    )
  }
  paths <- if (is_sheet(x)) as.character(x$path) else x
  if (!is_sheet(x)) check_paths(x)
  check_h5ad_path(output, "output")
  check_flag(overwrite, "overwrite")
  for (path in unname(paths)) rust_check_output(path.expand(output), path.expand(path), overwrite)
  invisible()
}

check_h5ad_path <- function(path, name) {
  check_string(path, name, "the name of an .h5ad file to write")
  if (!grepl("\\.h5ad$", path, ignore.case = TRUE)) {
    abort("argument", "`", name, "` is ", quote_names(path), ". Give the name of a file that ends in .h5ad.")
  }
}

check_flag <- function(value, name) {
  if (!(isTRUE(value) || isFALSE(value))) abort("argument", "`", name, "` must be TRUE or FALSE, not ", describe(value), ".")
}

# From file to file, in blocks of cells.
stream_guides <- function(x, layer, output, overwrite, info, control, decision, min_umi, n_jobs) {
  if (!is.null(layer)) check_string(layer, "layer", "the name of a layer, or NULL for X")
  params <- c(score_params(control, NULL, FALSE), rule_params(decision$rule, decision$cut, min_umi))
  calls <- list(model = info$model, params = params, version = kaichi_version())
  done <- rust_stream(
    path.expand(x), layer, path.expand(output), overwrite, info$model, control, decision$rule, decision$cut, min_umi,
    calls_notes(calls), n_jobs
  )
  fits <- name_fits(done$fits, done$guides, NULL)
  if ("guide_id" %in% names(fits)) fits[names(done$worth)] <- done$worth
  calls$screen <- done$screen
  calls_in_file(output, fits, calls, done$n_cells)
}

# What assign_guides() returns of calls that are in a file.
calls_in_file <- function(output, fits, calls, n_cells = nrow(calls$cells)) {
  list(
    output = output, n_cells = as.integer(n_cells), fits = fits, screen = calls$screen, model = calls$model, params = calls$params,
    version = calls$version
  )
}

# A guide_calls -> .h5ad, or .h5mu (by the end of `path`, if nothing is said), where the calls are the modality `guide`. `rna`, for an .h5mu, is the path
# of an .h5ad, which becomes the modality `rna`, or of an .h5mu, whose modalities are copied but for one named `guide`. `score`
# has a value for each stored count, or none; `template`, for an .h5ad, is the one that the counts come from, whose columns of
# obs and var are kept, or "".
write_h5ad_calls <- function(calls, path, overwrite = FALSE, rna = NULL, score = double(), template = "",
                             as_h5mu = grepl("[.]h5mu$", path, ignore.case = TRUE)) {
  if (!is.null(rna)) {
    check_string(rna, "rna", "the path of an .h5ad or .h5mu file, or NULL")
    if (!as_h5mu) {
      abort(
        "argument", "`rna` is for the format \"h5mu\", but the file to write is ", quote_names(path), ".\n",
        "  Leave `rna` out, or give the name of a file that ends in .h5mu."
      )
    }
    template <- path.expand(rna)
  }
  content <- h5ad_content(calls)
  rust_write(
    path.expand(path), as_h5mu, overwrite, template, calls$counts, score, calls$assigned, content$obs, content$var,
    content$notes, content$fits, calls$screen
  )
  invisible(path)
}

# The tables of the AnnData of a guide_calls, as stream_guides() writes them.
h5ad_content <- function(calls) {
  cells <- calls$cells[setdiff(names(calls$cells), "cell_barcode")]
  if (all(is.na(cells$set_probability))) cells$set_probability <- NULL
  # Categories in the order of the guides.
  guides <- rownames(calls$counts)
  cells$guide_id <- factor(cells$guide_id, levels = guides)
  fits <- calls$fits
  per_guide <- "guide_id" %in% names(fits)
  var <- if (per_guide) as.list(fits[match(guides, fits$guide_id), setdiff(names(fits), "guide_id")]) else list()
  facts <- guide_columns(calls, guides)
  # Dates and the like as text; a fit has the last word on a name.
  facts[] <- lapply(facts, function(x) if (is.object(x) && !is.factor(x)) as.character(x) else x)
  list(
    obs = cells,
    var = c(facts[setdiff(names(facts), names(var))], var),
    fits = if (!per_guide) fits,
    notes = calls_notes(calls)
  )
}

# uns/kaichi, with the names of kaichi for Python.
calls_notes <- function(calls) {
  rules <- c("min_confidence", "min_log_odds", "quantile", "fdr", "fdr_by", "min_umi")
  params <- calls$params
  decided <- params[intersect(rules, names(params))]
  fitted <- params[setdiff(names(params), rules)]
  c(list(model = calls$model, model_params = as_json(fitted), version = calls$version, stage = "assigned"), decided)
}

# NULL, vectors of logicals, numbers and text, and named lists of them -> JSON. A vector of one is a scalar.
as_json <- function(x) {
  if (is.list(x)) {
    return(paste0("{", paste0(json_text(names(x)), ":", vapply(x, as_json, ""), collapse = ","), "}"))
  }
  if (length(x) == 0L) return("null")
  values <- if (is.character(x) || is.factor(x)) {
    json_text(as.character(x))
  } else if (is.logical(x)) {
    ifelse(x, "true", "false")
  } else {
    # JSON has no infinity.
    ifelse(is.finite(x), vapply(x, format, "", digits = 15L), "null")
  }
  values[is.na(x)] <- "null"
  if (length(x) == 1L) values else paste0("[", paste0(values, collapse = ","), "]")
}

json_text <- function(x) {
  x <- gsub("([\\\\\"])", "\\\\\\1", x)
  paste0("\"", gsub("[[:cntrl:]]", " ", x), "\"")
}
