# The only calls into Rust. Every rs_*() returns its value, or a condition object that unwrap() raises.
unwrap <- function(value) {
  if (!inherits(value, "kaichi_error")) return(value)
  if (inherits(value, "kaichi_error_interrupted")) {
    signalCondition(structure(class = c("interrupt", "condition"), list(message = "", call = NULL)))
    invokeRestart("abort")
  }
  stop(value)
}

# 0 is half of the logical cores.
jobs <- function(n_jobs) if (is.null(n_jobs)) 0L else as.integer(n_jobs)

# Made when the package is built: new() looks for its methods first, for longer than a small screen takes.
empty_sparse <- methods::new("dgCMatrix")

# The guides x cells dgCMatrix of what Rust has made, which is sound: new() with its slots would look through all of it again.
sparse_of_rust <- function(p, i, x, dim, dimnames = list(NULL, NULL)) {
  matrix <- empty_sparse
  matrix@p <- p
  matrix@i <- i
  matrix@x <- x
  matrix@Dim <- dim
  matrix@Dimnames <- dimnames
  matrix
}

# `samples` are names for the paths, or empty. `options` is a named list of strings, those of `ReadOptions` in Rust; NULL is not said.
# `guides` are the ids of the guide table, or empty.
rust_read <- function(paths, samples, options, guides, n_jobs) {
  options <- lapply(Filter(Negate(is.null), options), enc2utf8)
  unwrap(rs_read(enc2utf8(paths), enc2utf8(samples), options, enc2utf8(guides), jobs(n_jobs)))
}

# list(columns, choices).
rust_read_guide_table <- function(path) unwrap(rs_read_guide_table(enc2utf8(path)))

# The columns that a guide table has by the names of others: list(name, from, choices).
rust_guide_columns <- function(columns) unwrap(rs_guide_columns(enc2utf8(columns)))

# What names of features tell: list(genes, leftovers).
rust_features <- function(names) unwrap(rs_features(enc2utf8(names)))

rust_are_barcodes <- function(names) unwrap(rs_are_barcodes(enc2utf8(names)))

rust_is_gene_modality <- function(names) unwrap(rs_is_gene_modality(enc2utf8(names)))

rust_long_columns <- function(columns) unwrap(rs_long_columns(enc2utf8(columns)))

rust_orient <- function(rows, columns, corner, guides) {
  unwrap(rs_orient(enc2utf8(rows), enc2utf8(columns), enc2utf8(corner), enc2utf8(guides)))
}

rust_is_guide_type <- function(types) unwrap(rs_is_guide_type(enc2utf8(types)))

rust_is_guide_name <- function(names) unwrap(rs_is_guide_name(enc2utf8(names)))

rust_first_bad_count <- function(x) unwrap(rs_first_bad_count(x))

rust_models <- function() unwrap(rs_models())

rust_find_model <- function(name) unwrap(rs_find_model(enc2utf8(name)))

rust_control <- function() unwrap(rs_control())

# `counts` is a guides x cells dgCMatrix, `batch` NULL or a factor (or its codes), `covariate` NULL or a number for each cell,
# `depth` NULL where all guides of the cells are here, else their guide UMIs. Returns the score of every stored count, the log odds
# of each (NULL unless `log_odds` asks for them and the model has posteriors), the fits, and what was learnt of the cells and of
# the screen as a whole (both NULL for most models).
rust_score <- function(counts, model, control, batch, covariate, n_jobs, depth = NULL, log_odds = FALSE) {
  unwrap(rs_score(
    nrow(counts), counts@p, counts@i, counts@x, model,
    as.double(unlist(control)[names(rust_control())]),
    if (is.null(batch)) integer() else as.integer(batch),
    if (is.null(covariate)) double() else covariate,
    if (is.null(depth)) double() else depth,
    log_odds,
    jobs(n_jobs)
  ))
}

# The guides `first` to `last` of a guides x cells dgCMatrix: list(p, i, x, depth), depth the guide UMIs of every cell.
rust_shard <- function(counts, first, last, n_jobs) {
  unwrap(rs_shard(nrow(counts), counts@p, counts@i, counts@x, first, last, jobs(n_jobs)))
}

# `rule` is "min_confidence", "min_log_odds", "quantile", "fdr" or "fdr_per_guide"; `log_odds` are those of the scores, or double()
# where these have to do; `posterior` says that scores are probabilities, `add_log_odds` that the log odds of the called pairs are
# returned; `status` is that of every guide's fit, or character() where fits are not per guide.
rust_decide <- function(counts, score, log_odds, rule, cut, min_umi, posterior, add_log_odds, status, n_jobs) {
  unwrap(rs_decide(
    rownames(counts), colnames(counts), counts@p, counts@i, counts@x, score, log_odds, rule, as.double(cut), as.double(min_umi),
    posterior, add_log_odds, status, jobs(n_jobs)
  ))
}

# Whether progress_tick() is called while Rust works.
rust_show_progress <- function(show) unwrap(rs_show_progress(show))

rust_is_h5ad <- function(path, layer = NULL) unwrap(rs_is_h5ad(enc2utf8(path), if (!is.null(layer)) enc2utf8(layer)))

rust_check_output <- function(path, input, overwrite) unwrap(rs_check_output(enc2utf8(path), enc2utf8(input), overwrite))

# `notes` is a named list of strings and numbers. Returns the fits, what was learnt of the screen (or NULL), the names of the guides,
# what their calls are worth, and the number of cells.
rust_stream <- function(input, layer, output, overwrite, model, control, rule, cut, min_umi, notes, n_jobs) {
  unwrap(rs_stream(
    enc2utf8(input), layer, enc2utf8(output), overwrite, model, as.double(unlist(control)[names(rust_control())]), rule,
    as.double(cut), as.double(min_umi), notes, jobs(n_jobs)
  ))
}

# `counts` and `assigned` are guides x cells dgCMatrix of the same names, `score` empty or one number for each count; `obs`,
# `var`, `fits` and `screen` (the last two may be NULL) data.frames. `other` is for an .h5ad the one whose columns are kept, for an .h5mu the file with the
# other modalities, or "".
rust_write <- function(path, as_h5mu, overwrite, other, counts, score, assigned, obs, var, notes, fits, screen) {
  unwrap(rs_write(
    enc2utf8(path), as_h5mu, overwrite, enc2utf8(other), rownames(counts), colnames(counts), counts@p, counts@i, counts@x, score,
    assigned@p, assigned@i, as.list(obs), as.list(var), notes, if (!is.null(fits)) as.list(fits),
    if (!is.null(screen)) as.list(screen)
  ))
}

rust_guide_screens <- function() unwrap(rs_guide_screens())

# `params` is a named list of numbers, the parameters of the screen to change.
rust_simulate_guides <- function(screen, params, seed, n_jobs) {
  unwrap(rs_simulate_guides(
    enc2utf8(screen), as.character(names(params)), lengths(params, use.names = FALSE),
    as.double(unlist(params, use.names = FALSE)), as.double(seed), jobs(n_jobs)
  ))
}
