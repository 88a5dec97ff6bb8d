# Random screens; run.R sources it for --random N and has made what it uses (models, seeds, out, judge() and others).
#
#   Rscript tools/bench/accuracy/run.R --random 60 --seeds 1:60 [--models a,b] [--python PEERS_PYTHON] [--out FOLDER]
#
# Every parameter of simulate_guides() is drawn from the range that is found in the field. The seed alone decides the screen, so a
# screen is the same whichever others are run. Prints Markdown:
#
#   gaps          the ceiling less the F1 of a model: median, 90th percentile, largest, and the share of screens within 0.02
#                 The observer of the ceiling judges pairs one by one. A model that compares the guides of a cell can be above it
#                 where cells are selected for a guide and guides are few.
#   best          on how many screens a model has the highest F1 (rounded to four decimals); models that tie share the screen
#   calibration   expected calibration error of the posteriors above 0.01, in ten bins, the pairs of all screens pooled
#   fdr           false share of the pairs that decide_guides(fdr =) calls, pooled, and the share of screens on which it is at
#                 most 1.25 x the nominal rate. Few calls can exceed that by chance: a screen also passes if its false calls
#                 are at most the 95 % quantile of a binomial of its calls with 1.25 x the nominal rate. No call at all passes.
#
# random.csv has a row for each screen: its parameters, the ceiling and the F1 of every model. A model that fails on a screen has
# no F1 there and is left out of the means; Failures lists it.

# Every seed makes the same draws in the same order. What is not used is drawn all the same.
random_parameters <- function(seed) {
  old <- RNGkind("Mersenne-Twister", "Inversion", "Rejection")
  on.exit(do.call(RNGkind, as.list(old)))
  set.seed(seed)
  log_uniform <- function(from, to, n = 1L) exp(stats::runif(n, log(from), log(to)))
  happens <- function(probability) stats::runif(1L) < probability
  # `value` is drawn in any case, although R evaluates an argument only where it is used.
  optional <- function(probability, value, otherwise) {
    force(value)
    if (happens(probability)) value else otherwise
  }
  params <- list(
    n_guides = round(log_uniform(1, 5000)), n_cells = round(log_uniform(200, 20000)), moi = log_uniform(0.05, 8),
    selected = happens(0.5), signal_mean = log_uniform(2, 300), signal_size = log_uniform(0.3, 30),
    ambient_mean = log_uniform(0.02, 60)
  )
  params$ambient_size <- optional(0.8, log_uniform(0.15, 30), Inf)
  params$ambient_cell_size <- optional(0.8, log_uniform(0.5, 30), Inf)
  for (spread in c("efficiency_spread", "capture_spread", "abundance_spread", "ambient_guide_spread")) {
    params[[spread]] <- stats::runif(1L, 0, 1.2)
  }
  params$hopping <- optional(0.5, log_uniform(0.002, 0.15), 0)
  params$hopping_burst <- optional(0.5, log_uniform(0.3, 8), 0)
  params$share_empty <- optional(0.6, stats::runif(1L, 0, 0.6), 0)
  params$share_doublet <- optional(0.5, stats::runif(1L, 0, 0.2), 0)
  params$capture_gamma <- happens(0.5)
  params$ambient_library <- happens(0.5)
  lanes <- optional(0.5, sample(2:4, 1L), 1L)
  depth <- log_uniform(0.25, 4, 4L)
  ambient <- log_uniform(0.3, 3, 4L)
  sizes <- log_uniform(0.3, 3, 4L)
  if (lanes > 1L) {
    params$lane_depth <- depth[seq_len(lanes)]
    params$lane_ambient <- ambient[seq_len(lanes)]
    params$lane_cells <- sizes[seq_len(lanes)]
  }
  # Cells are chosen by a depth that is a part of the mean one.
  params$min_depth <- optional(0.4, ceiling(log_uniform(0.02, 0.5) * (params$moi * params$signal_mean + params$ambient_mean)), 0)
  params$n_empty_droplets <- optional(0.4, round(params$n_cells * log_uniform(0.1, 2)), 0)
  params$droplet_ambient <- log_uniform(0.01, 0.3)
  # An F1 of a handful of pairs is chance: as many cells as carry a hundred guides.
  carried <- (1 - params$share_empty) * if (params$selected) params$moi / -expm1(-params$moi) else params$moi
  params$n_cells <- max(params$n_cells, ceiling(100 / carried))
  # Counts that fit and time that is there: fewer cells where each has many counts.
  per_cell <- params$moi + params$ambient_mean * max(params$lane_depth %||% 1)
  most <- max(200, floor(min(5e5 / per_cell, 2e7 / params$n_guides)))
  params$n_empty_droplets <- round(params$n_empty_droplets * min(1, most / params$n_cells))
  params$n_cells <- min(params$n_cells, most)
  params
}
`%||%` <- function(x, y) if (is.null(x)) y else x

# Too high a `min_depth` is halved until there are such cells.
random_screen <- function(seed) {
  params <- random_parameters(seed)
  repeat {
    sim <- tryCatch(
      do.call(simulate_guides, c(list("easy"), params, changes, list(seed = seed))),
      kaichi_error_argument = function(e) if (params$min_depth > 0 && grepl("min_depth", conditionMessage(e))) NULL else stop(e)
    )
    if (!is.null(sim)) return(sim)
    params$min_depth <- floor(params$min_depth / 2)
  }
}

nominal <- c(0.05, 0.1)
f1_of <- function(called, true) f1(sum(called %in% true), length(called), length(true))

# One fit for the default calls and those at a false discovery rate.
random_model <- function(sim, seed, model, true, keys, is_true) {
  what <- paste("random", seed, "kaichi", model)
  batch <- use_batch(sim, model)
  info <- registry[match(model, registry$model), ]
  if (info$confidence != "posterior" || info$rule == "single_stage") {
    calls <- attempt(what, assign_guides(sim$counts, model = model, batch = batch))
    return(if (!is.null(calls)) f1_of(pairs_of(sim, calls$pairs), true) else NA_real_)
  }
  scores <- attempt(what, score_guides(sim$counts, model = model, batch = batch))
  if (is.null(scores)) return(NA_real_)
  add("bins", screen = "random", seed = seed, model = model, bins(scores$posterior@x, is_true))
  for (rate in nominal) {
    found <- attempt(paste(what, "fdr", rate), pairs_of(sim, decide_guides(scores, fdr = rate)$pairs))
    if (is.null(found)) next
    right <- sum(found %in% true)
    add(
      "fdr", seed = seed, model = model, fdr = rate, called = length(found), false = length(found) - right,
      recall = right / length(true)
    )
  }
  calls <- attempt(what, decide_guides(scores, min_confidence = info$cut))
  if (is.null(calls)) NA_real_ else f1_of(pairs_of(sim, calls$pairs), true)
}

rows <- list()
for (seed in seeds) {
  sim <- random_screen(seed)
  message(
    "random ", seed, ": ", nrow(sim$counts), " guides x ", ncol(sim$counts), " barcodes, ", nrow(sim$truth), " true pairs, ceiling ",
    format(round(sim$ceiling, 4))
  )
  true <- pairs_of(sim, sim$truth)
  keys <- stored_pairs(sim)
  is_true <- keys %in% true
  add("bins", screen = "random", seed = seed, model = "ceiling", bins(sim$oracle@x, is_true))
  found <- vapply(models, function(model) random_model(sim, seed, model, true, keys, is_true), 0)
  values <- sim$params[setdiff(names(sim$params), c("screen", "seed", "dual", "recombined"))]
  values <- lapply(values, function(x) if (length(x) == 1L) x else paste(signif(x, 3), collapse = " "))
  rows[[as.character(seed)]] <- list(
    about = data.frame(
      seed = seed, lapply(values, function(x) if (is.double(x)) signif(x, 4) else x), lanes = nlevels(sim$lane),
      true_pairs = length(true), counts = length(keys), ceiling = sim$ceiling, ceiling_cut = sim$ceiling_cut,
      stringsAsFactors = FALSE
    ),
    f1 = found
  )
  if (nzchar(options$python)) write_for_peers(sim, file.path(out, paste0("random-", seed)))
}
if (nzchar(options$python)) {
  folders <- file.path(out, paste0("random-", seeds))
  run_peers(folders)
  for (at in seq_along(seeds)) {
    sim <- random_screen(seeds[at])
    true <- pairs_of(sim, sim$truth)
    for (peer in peer_calls(sim, folders[at], paste("random", seeds[at]))) {
      rows[[at]]$f1[paste(peer$tool, peer$model)] <- f1_of(unique(peer$called), true)
    }
  }
}

# All models in columns: a peer may have failed on some screens.
tools <- unique(unlist(lapply(rows, function(row) names(row$f1))))
scored <- t(vapply(rows, function(row) row$f1[tools], stats::setNames(numeric(length(tools)), tools)))
if (length(tools) == 1L) scored <- t(scored)
dimnames(scored) <- list(NULL, tools)
about <- do.call(rbind, lapply(rows, `[[`, "about"))
utils::write.csv(cbind(about, round(scored, 5)), file.path(out, "random.csv"), row.names = FALSE)
for (name in names(results)) utils::write.csv(do.call(rbind, results[[name]]), file.path(out, paste0("random-", name, ".csv")), row.names = FALSE)

cat("Random screens of seeds ", seeds[1L], " to ", seeds[length(seeds)], ", kaichi ", as.character(packageVersion("kaichi")), "\n", sep = "")
if (length(changes) > 0L) cat("Changed on every screen: ", options$set, "\n", sep = "")
gap <- about$ceiling - scored
ran <- colSums(!is.na(gap))
best <- rowSums(!is.na(gap)) > 0
# Of our own models and the peers alike.
winners <- round(scored, 4) == apply(round(scored, 4), 1L, max, na.rm = TRUE)
shares <- winners / rowSums(winners, na.rm = TRUE)
measures <- list(
  "screens" = ran,
  "median" = apply(gap, 2L, stats::median, na.rm = TRUE),
  "90th percentile" = apply(gap, 2L, stats::quantile, 0.9, na.rm = TRUE),
  "worst" = apply(gap, 2L, max, na.rm = TRUE),
  "within 0.02" = colMeans(gap <= 0.02, na.rm = TRUE),
  "above the ceiling by" = pmax(apply(-gap, 2L, max, na.rm = TRUE), 0) + 0,
  "best on" = colSums(shares[best, , drop = FALSE], na.rm = TRUE)
)
decimals <- c(0, 3, 3, 3, 2, 3, 1)
cat("\n### Ceiling less F1\n\n| | ", paste(names(measures), collapse = " | "), " |\n|", strrep(" --- |", length(measures) + 1L), "\n", sep = "")
for (tool in tools[order(measures$median)]) {
  shown <- mapply(function(values, digits) formatC(values[[tool]], digits = digits, format = "f"), measures, decimals)
  cat("| ", tool, " | ", paste(shown, collapse = " | "), " |\n", sep = "")
}

curves <- pooled(do.call(rbind, results$bins), c("screen", "model"))
curves <- curves[order(match(curves$model, c("ceiling", models))), ]
errors <- vapply(split(curves, factor(curves$model, unique(curves$model))), ece, 0)
show_table("Expected calibration error (posterior above 0.01, ten bins, screens pooled)", errors, names(errors), rep("error", length(errors)))
show_table(
  "Reliability: share of true pairs by posterior", curves$true, curves$model,
  sprintf("%.1f-%.1f", curves$bin / 10, (curves$bin + 1) / 10), digits = 2L
)
if (!is.null(results$fdr)) {
  fdr <- do.call(rbind, results$fdr)
  allowed <- pmax(1.25 * fdr$fdr * fdr$called, stats::qbinom(0.95, fdr$called, 1.25 * fdr$fdr))
  fdr$passes <- fdr$false <= allowed
  for (rate in nominal) {
    at <- split(fdr[fdr$fdr == rate, ], factor(fdr$model[fdr$fdr == rate], intersect(models, fdr$model)))
    by_model <- function(measure) vapply(at, measure, 0)
    values <- list(
      "pooled" = by_model(function(rows) sum(rows$false) / max(1, sum(rows$called))),
      "mean of screens" = by_model(function(rows) mean(rows$false / pmax(1, rows$called))),
      "worst" = by_model(function(rows) max(rows$false / pmax(1, rows$called))),
      "at most 1.25 x nominal" = by_model(function(rows) mean(rows$passes)),
      "recall" = by_model(function(rows) mean(rows$recall)),
      "no call" = by_model(function(rows) mean(rows$called == 0))
    )
    show_table(
      sprintf("False discovery rate at fdr = %s: realised, and share of screens", rate),
      unlist(values), rep(names(at), length(values)), rep(names(values), each = length(at))
    )
  }
}
if (length(failures) > 0L) cat("\n### Failures\n\n", paste0("- ", failures, "\n"), sep = "")
message("Tables as csv in ", out)
