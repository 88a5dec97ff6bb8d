# Guides on many workers: a shard is a range of guides. The fit of a guide needs nothing of the other guides but the depth of
# the cells, so that it is the same, bit for bit, wherever it is made.

# Models with a fit per guide. The others look at all guides of a cell at once, and most have nothing to fit.
has_shards <- function(info) info$family == "mixture" && info$fitted_per == "guide"

check_bpparam <- function(BPPARAM) {
  if (is.null(BPPARAM)) return(invisible())
  if (isS4(BPPARAM)) {
    need_package("BiocParallel", "to score on the workers of `BPPARAM`", "Bioconductor")
    if (methods::is(BPPARAM, "BiocParallelParam")) return(invisible())
  }
  abort(
    "argument", "`BPPARAM` is of class ", quote_names(class(BPPARAM)), ", which is no BiocParallelParam.\n",
    "  Give one, for example BPPARAM = BiocParallel::SnowParam(4), or NULL. Threads of this machine are `n_jobs`."
  )
}

# What a worker needs to read the counts itself; NULL for counts in memory.
shard_file <- function(x, layer, modality = NULL, choices = list(), table = NULL) {
  if (!is_one_file(x)) return(NULL)
  whole <- function(path) if (!is.null(path)) normalizePath(path, winslash = "/", mustWork = TRUE)
  choices[c("features", "barcodes")] <- list(whole(choices$features), whole(choices$barcodes))
  c(list(path = whole(x), layer = layer, modality = modality, guides = table$guide_id), choices)
}

# One path, of which several processes can read the same.
is_one_file <- function(x) is.character(x) && length(x) == 1L && is.null(names(x))

# As rust_score(), by the workers of `BPPARAM`.
score_shards <- function(counts, info, n_jobs, control, BPPARAM, file, log_odds = FALSE) {
  guides <- shard_guides(counts$counts, BiocParallel::bpnworkers(BPPARAM))
  shards <- lapply(guides, function(range) {
    if (is.null(file)) take_shard(counts$counts, range, info, n_jobs) else list(range = range)
  })
  task <- list(
    info = info,
    control = control,
    # Codes, because the levels of a factor are in the order of the locale, which is a worker's own.
    batch = if (info$uses_batch && !is.null(counts$batch)) as.integer(counts$batch),
    n_jobs = if (is.null(n_jobs)) 1L else n_jobs,
    log_odds = log_odds,
    file = file,
    n = c(dim(counts$counts), length(counts$counts@x)),
    version = kaichi_version()
  )
  scored <- tryCatch(
    BiocParallel::bplapply(shards, score_shard, task = task, BPPARAM = BPPARAM),
    error = function(e) {
      abort(
        "worker", "A worker of `BPPARAM` failed: ", first_failure(e), "\n",
        "  Each needs kaichi ", task$version, ", memory for its guides and, for a file, the same path to it."
      )
    }
  )
  for (one in scored) if (inherits(one, "kaichi_error")) stop(one)
  gather_shards(scored, guides, counts$counts)
}

# BiocParallel raises a summary, with the errors of the workers beside it.
first_failure <- function(e) {
  failed <- Filter(function(result) inherits(result, "error"), attr(e, "result"))
  conditionMessage(if (length(failed) > 0L) failed[[1L]] else e)
}

# What a worker does. Errors are values, because BiocParallel takes the class from those that are raised.
score_shard <- function(shard, task) {
  tryCatch(
    {
      if (kaichi_version() != task$version) {
        abort(
          "worker", "A worker of `BPPARAM` has kaichi ", kaichi_version(), ", this session ", task$version,
          ".\n  Install the same version for both."
        )
      }
      if (!is.null(task$file)) {
        counts <- suppressMessages(
          do.call(read_guide_file, c(task$file, list(n_jobs = task$n_jobs))), "kaichi_message_choice"
        )$counts
        if (!identical(c(dim(counts), length(counts@x)), task$n)) {
          abort(
            "file", "The file ", quote_names(task$file$path), " is another one for a worker of `BPPARAM`, or has changed since",
            " the work began.\n  Workers need the same file at the same path."
          )
        }
        shard <- take_shard(counts, shard$range, task$info, task$n_jobs)
      }
      scored <- rust_score(
        shard$counts, task$info$model, task$control, task$batch, NULL, task$n_jobs, shard$depth, task$log_odds
      )
      scored[c("score", "log_odds", "fits")]
    },
    kaichi_error = identity
  )
}

# The counts of a range of guides, with the depth of the cells where the model uses it.
take_shard <- function(counts, range, info, n_jobs) {
  taken <- rust_shard(counts, range[1L], range[2L], n_jobs)
  list(
    range = range,
    counts = sparse_of_rust(taken$p, taken$i, taken$x, c(range[2L] - range[1L] + 1L, ncol(counts))),
    depth = if (info$uses_depth) taken$depth
  )
}

# Ranges of guides, as c(first, last), that take about equally long. A fit costs something by itself and for each count.
shard_guides <- function(counts, n_workers) {
  n_cells <- tabulate(counts@i + 1L, nrow(counts))
  cost <- cumsum(n_cells + max(1, mean(n_cells)))
  worker <- pmin(n_workers, ceiling(n_workers * cost / cost[length(cost)]))
  ends <- which(!duplicated(worker, fromLast = TRUE))
  Map(c, c(1L, ends[-length(ends)] + 1L), ends)
}

# Scores back to where the counts stand, fits below each other with the guides numbered anew.
gather_shards <- function(scored, guides, counts) {
  score <- numeric(length(counts@x))
  log_odds <- if (!is.null(scored[[1L]]$log_odds)) score
  for (k in seq_along(guides)) {
    range <- guides[[k]] - 1L
    here <- counts@i >= range[1L] & counts@i <= range[2L]
    score[here] <- scored[[k]]$score
    if (!is.null(log_odds)) log_odds[here] <- scored[[k]]$log_odds
    scored[[k]]$fits$guide <- scored[[k]]$fits$guide + range[1L]
  }
  list(score = score, log_odds = log_odds, fits = as_data_frame(do.call(Map, c(list(c), lapply(scored, `[[`, "fits")))))
}
