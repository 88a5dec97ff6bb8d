# The accuracy of every model, and of the Python peers, on simulated screens of known truth.
#
#   Rscript tools/bench/accuracy/run.R --seeds 101:110 --python PEERS_PYTHON [--out FOLDER]
#
#   --seeds A:B     seeds of the screens (default 101:110; tune on others)
#   --screens a,b   of guide_screens() (default all)
#   --models a,b    of guide_models() (default all)
#   --python PATH   a Python with the peers from PyPI (the head of peers.py says which); default the environment variable
#                   PEERS_PYTHON; without one the peers are left out
#   --crispat a,b   models of crispat 0.9.11 to run too, in the same Python; without a value the eight that take five minutes
#                   a screen, all together; poisson, neg_binomial and binomial take 30 to 45 minutes each
#   --crispat-seeds A:B   the seeds crispat runs on (default the first two of --seeds: more than an hour for all screens)
#   --set n=v,...   parameters of simulate_guides() to change on every screen, as in moi=NA
#   --random N      instead of the named screens: one screen for each of the seeds A, A + 1, ... (N of them), whose parameters are
#                   drawn from the range that the field has; random.R says which, and what it prints
#   --out FOLDER    where the tables go as csv, with the calls of the peers (default a temporary folder). Peers that have
#                   calls there, of the same screen, are not run again: the slow ones can be run before, by several runs at
#                   once with other --seeds, and a run that was stopped goes on where it was
#
# Prints Markdown: mean F1 over (cell, guide) pairs, expected calibration error, realised false discovery rate, F1 by the
# number of cells that carry the guide, and false calls of single UMIs. Reads no network.
library(kaichi)

quick_crispat <- "umi,max,ratio,quantiles,beta2,beta3,gauss,poisson_gauss"
options <- local({
  given <- commandArgs(trailingOnly = TRUE)
  known <- c("seeds", "screens", "models", "python", "crispat", "crispat-seeds", "set", "random", "out")
  values <- list(seeds = "101:110", python = Sys.getenv("PEERS_PYTHON"), crispat = "", set = "")
  while (length(given) > 0L) {
    name <- sub("^--", "", given[1L])
    if (name == "crispat" && (length(given) < 2L || startsWith(given[2L], "--"))) given <- append(given, quick_crispat, 1L)
    if (!startsWith(given[1L], "--") || !name %in% known || length(given) < 2L) {
      stop("Unknown or incomplete option ", given[1L], ". Known: ", paste0("--", known, collapse = " "), ", each with a value.")
    }
    values[[name]] <- given[2L]
    given <- given[-(1:2)]
  }
  values
})
pieces <- function(text) strsplit(text, ",", fixed = TRUE)[[1L]]
range_of <- function(text) {
  ends <- as.integer(strsplit(text, ":", fixed = TRUE)[[1L]])
  seq(ends[1L], ends[length(ends)])
}
seeds <- range_of(options$seeds)
if (!is.null(options$random)) {
  if (is.na(suppressWarnings(as.integer(options$random)))) stop("--random ", options$random, " must be a whole number.")
  seeds <- seq(seeds[1L], length.out = as.integer(options$random))
}
crispat_seeds <- if (is.null(options[["crispat-seeds"]])) utils::head(seeds, 2L) else range_of(options[["crispat-seeds"]])
if (!all(crispat_seeds %in% seeds)) {
  stop("--crispat-seeds ", options[["crispat-seeds"]], " must be among --seeds ", options$seeds, ".")
}
if (nzchar(options$crispat) && !nzchar(options$python)) {
  stop("--crispat needs --python, or the environment variable PEERS_PYTHON.")
}
changes <- lapply(pieces(options$set), function(change) strsplit(change, "=", fixed = TRUE)[[1L]])
changes <- stats::setNames(
  lapply(changes, function(change) utils::type.convert(change[2L], as.is = TRUE)),
  vapply(changes, `[`, "", 1L)
)
screens <- if (is.null(options$screens)) guide_screens()$screen else pieces(options$screens)
registry <- guide_models()
models <- if (is.null(options$models)) registry$model else pieces(options$models)
registry <- registry[match(models, registry$model), ]
out <- if (is.null(options$out)) tempfile("accuracy") else options$out
dir.create(out, showWarnings = FALSE, recursive = TRUE)

# A (cell, guide) pair as one number.
pair_key <- function(sim, cell, guide) (cell - 1) * nrow(sim$counts) + guide
pairs_of <- function(sim, table) {
  pair_key(sim, match(table$cell_barcode, colnames(sim$counts)), match(table$guide_id, rownames(sim$counts)))
}
stored_pairs <- function(sim) pair_key(sim, rep(seq_len(ncol(sim$counts)), diff(sim$counts@p)), sim$counts@i + 1)
f1 <- function(right, called, carried) if (called + carried == 0) NA_real_ else 2 * right / (called + carried)
use_batch <- function(sim, model) if (registry$uses_batch[match(model, registry$model)] && nlevels(sim$lane) > 1L) sim$lane

# Expected calibration error of posteriors above 0.01, in ten bins of equal width.
bins <- function(posterior, true) {
  keep <- posterior > 0.01
  bin <- factor(pmin(floor(posterior[keep] * 10), 9), 0:9)
  data.frame(
    bin = 0:9, n = as.vector(table(bin)),
    confidence = as.vector(tapply(posterior[keep], bin, mean)), true = as.vector(tapply(true[keep], bin, mean))
  )
}
ece <- function(bins) sum(bins$n * abs(bins$confidence - bins$true), na.rm = TRUE) / sum(bins$n)

# Right, called and carried pairs by how many cells carry the guide.
rarity <- c("1-5", "6-20", "21-100", "more")
by_rarity <- function(sim, called, true) {
  guide <- function(key) (key - 1) %% nrow(sim$counts) + 1
  carried <- tabulate(guide(true), nrow(sim$counts))
  class <- cut(carried, c(-1, 0, 5, 20, 100, Inf), c("0", rarity))
  count <- function(key) as.vector(table(class[guide(key)])[rarity])
  data.frame(carriers = rarity, right = count(called[called %in% true]), called = count(called), carried = count(true))
}

results <- list()
add <- function(kind, ...) {
  row <- data.frame(..., stringsAsFactors = FALSE)
  results[[kind]][[length(results[[kind]]) + 1L]] <<- row
}
failures <- character()
attempt <- function(what, code) {
  tryCatch(code, error = function(e) {
    failures <<- c(failures, paste0(what, ": ", conditionMessage(e)))
    NULL
  })
}
judge <- function(screen, seed, tool, model, sim, called, true) {
  called <- unique(called)
  add("f1", screen = screen, seed = seed, tool = tool, model = model, f1 = f1(sum(called %in% true), length(called), length(true)))
  add("rarity", screen = screen, seed = seed, tool = tool, model = model, by_rarity(sim, called, true))
}

can_fdr <- "fdr" %in% names(formals(decide_guides))
rates <- c(0.01, 0.05, 0.1, 0.2)
write_screen <- function(sim, folder) {
  dir.create(folder)
  writeBin(sim$counts@p, file.path(folder, "indptr"), endian = "little")
  writeBin(sim$counts@i, file.path(folder, "guide"), endian = "little")
  writeBin(sim$counts@x, file.path(folder, "count"), endian = "little")
  writeLines(paste(ncol(sim$counts), nrow(sim$counts)), file.path(folder, "shape"))
  writeLines(as.character(sim$lane), file.path(folder, "lane.txt"))
}
# A folder that holds this very screen is left as it is, with the calls in it; one that holds another loses them.
write_for_peers <- function(sim, folder) {
  new <- tempfile("screen", out)
  on.exit(unlink(new, recursive = TRUE))
  write_screen(sim, new)
  sums <- function(folder) unname(tools::md5sum(file.path(folder, list.files(new))))
  if (identical(sums(folder), sums(new))) return()
  unlink(folder, recursive = TRUE)
  file.rename(new, folder)
}
# The screen on which models that compare a guide with its cell's total call single UMIs: no doubt about any of them.
single_umis <- function(seed) {
  simulate_guides(
    "easy", n_cells = 20000, n_guides = 100, moi = NA, share_empty = 0.12, signal_mean = 50, signal_size = 20,
    efficiency_spread = 0.2, ambient_mean = 5, ambient_size = Inf, ambient_cell_size = Inf, ambient_guide_spread = 0, seed = seed
  )
}
draw <- function(screen, seed) {
  if (screen == "single_umis") return(single_umis(seed))
  do.call(simulate_guides, c(list(screen), changes, list(seed = seed)))
}
jobs <- rbind(
  expand.grid(seed = seeds, screen = screens, stringsAsFactors = FALSE),
  data.frame(seed = seeds[1L], screen = "single_umis")
)
folder_of <- function(job) file.path(out, paste0(job$screen, "-", job$seed))
single_calls <- function(sim, called, true) {
  keys <- stored_pairs(sim)
  single <- keys[sim$counts@x == 1]
  sum(called %in% single & !called %in% true)
}

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
run_peers <- function(folders) {
  on_crispat <- if (nzchar(options$crispat)) {
    c("--crispat", options$crispat, "--crispat-seeds", paste(range(crispat_seeds), collapse = ":"))
  }
  message("the peers in Python")
  # R puts the folders of its own libraries before those Python was built with, and Python then loads libraries of another build.
  arguments <- c(shQuote(file.path(here, "peers.py")), on_crispat, shQuote(folders))
  if (system2(options$python, arguments, env = "LD_LIBRARY_PATH=") != 0L) stop("The peers failed; see above.")
}
# The calls that the peers left in a folder, as list(tool, model, called); their errors become failures.
peer_calls <- function(sim, folder, what) {
  # A folder can hold the calls of crispat models that this run was not asked for.
  of_this_run <- function(files) {
    model <- sub("^.*-([a-z_0-9]*)\\.[a-z]*$", "\\1", basename(files))
    files[!startsWith(basename(files), "crispat-") | model %in% pieces(options$crispat)]
  }
  for (file in of_this_run(list.files(folder, "\\.error$", full.names = TRUE))) {
    failures <<- c(failures, paste(what, sub("\\.error$", "", basename(file)), readLines(file)[1L]))
  }
  lapply(of_this_run(list.files(folder, "\\.calls$", full.names = TRUE)), function(file) {
    name <- sub("\\.calls$", "", basename(file))
    cells <- matrix(readBin(file, "integer", file.size(file) / 4, endian = "little"), nrow = 2L)
    list(
      tool = sub("-[a-z_0-9]*$", "", name), model = sub("^.*-", "", name),
      called = pair_key(sim, cells[1L, ] + 1, cells[2L, ] + 1)
    )
  })
}

# Rows by columns, as Markdown.
show_table <- function(title, value, row, column, digits = 3L) {
  cat("\n### ", title, "\n\n", sep = "")
  rows <- unique(row)
  columns <- unique(column)
  cat("| | ", paste(columns, collapse = " | "), " |\n|", strrep(" --- |", length(columns) + 1L), "\n", sep = "")
  for (r in rows) {
    shown <- vapply(columns, function(k) {
      at <- row == r & column == k
      mean <- if (any(at)) mean(value[at]) else NA
      if (is.na(mean)) "-" else formatC(mean, digits = digits, format = "f")
    }, "")
    cat("| ", r, " | ", paste(shown, collapse = " | "), " |\n", sep = "")
  }
}
pooled <- function(table, by) {
  groups <- split(table, table[by], drop = TRUE)
  do.call(rbind, lapply(groups, function(g) {
    n <- tapply(g$n, g$bin, sum)
    sums <- function(x) as.vector(tapply(ifelse(g$n > 0, x * g$n, 0), g$bin, sum) / n)
    data.frame(
      screen = g$screen[1L], model = g$model[1L], bin = as.integer(names(n)), n = as.vector(n),
      confidence = sums(g$confidence), true = sums(g$true), stringsAsFactors = FALSE
    )
  }))
}

if (!is.null(options$random)) {
  source(file.path(here, "random.R"))
  quit(save = "no")
}

for (at in seq_len(nrow(jobs))) {
  job <- jobs[at, ]
  message(job$screen, " ", job$seed)
  sim <- draw(job$screen, job$seed)
  write_for_peers(sim, folder_of(job))
  true <- pairs_of(sim, sim$truth)
  keys <- stored_pairs(sim)
  is_true <- keys %in% true
  if (job$screen != "single_umis") {
    judge(job$screen, job$seed, "ceiling", "ceiling", sim, keys[sim$oracle@x >= sim$ceiling_cut], true)
    add("bins", screen = job$screen, seed = job$seed, model = "ceiling", bins(sim$oracle@x, is_true))
  }
  for (model in models) {
    what <- paste(job$screen, job$seed, "kaichi", model)
    batch <- use_batch(sim, model)
    calls <- attempt(what, assign_guides(sim$counts, model = model, batch = batch))
    if (is.null(calls)) next
    called <- pairs_of(sim, calls$pairs)
    if (job$screen == "single_umis") {
      add("single", tool = "kaichi", model = model, false = single_calls(sim, called, true))
      next
    }
    judge(job$screen, job$seed, "kaichi", model, sim, called, true)
    info <- registry[match(model, registry$model), ]
    if (info$confidence != "posterior" || info$rule == "single_stage") next
    scores <- attempt(what, score_guides(sim$counts, model = model, batch = batch))
    if (is.null(scores)) next
    add("bins", screen = job$screen, seed = job$seed, model = model, bins(scores$posterior@x, is_true))
    if (!can_fdr) next
    for (rate in rates) {
      found <- attempt(paste(what, "fdr", rate), pairs_of(sim, decide_guides(scores, fdr = rate)$pairs))
      if (is.null(found)) next
      add(
        "fdr", screen = job$screen, seed = job$seed, model = model, fdr = rate,
        realised = if (length(found) == 0L) 0 else mean(!found %in% true), recall = mean(true %in% found)
      )
    }
  }
}

if (nzchar(options$python)) {
  run_peers(vapply(seq_len(nrow(jobs)), function(at) folder_of(jobs[at, ]), ""))
  for (at in seq_len(nrow(jobs))) {
    job <- jobs[at, ]
    sim <- draw(job$screen, job$seed)
    true <- pairs_of(sim, sim$truth)
    for (peer in peer_calls(sim, folder_of(job), paste(job$screen, job$seed))) {
      tool <- peer$tool
      model <- peer$model
      called <- peer$called
      if (job$screen == "single_umis") {
        add("single", tool = tool, model = model, false = single_calls(sim, called, true))
      } else {
        judge(job$screen, job$seed, tool, model, sim, called, true)
      }
    }
  }
}

# Which seeds the tools that did not run on all of them ran on.
seeds_note <- function(rows) {
  ran <- lapply(split(rows$seed, named(rows$tool, rows$model)), function(seed) sort(unique(seed)))
  ran <- vapply(ran[lengths(ran) < length(seeds)], paste, "", collapse = ", ")
  for (on in unique(ran)) cat("\nOn seeds ", on, " only: ", paste(names(ran)[ran == on], collapse = ", "), ".\n", sep = "")
}
tables <- lapply(results, function(rows) do.call(rbind, rows))
# In the order of the registry, the ceiling first.
tables$f1 <- tables$f1[order(match(tables$f1$tool, unique(tables$f1$tool)), match(tables$f1$model, guide_models()$model)), ]
for (name in names(tables)) utils::write.csv(tables[[name]], file.path(out, paste0(name, ".csv")), row.names = FALSE)
named <- function(tool, model) ifelse(tool == "ceiling", "ceiling", paste(tool, model))

cat("Seeds ", options$seeds, ", kaichi ", as.character(packageVersion("kaichi")), "\n", sep = "")
if (length(changes) > 0L) cat("Changed on every screen: ", options$set, "\n", sep = "")
show_table("Mean F1 over (cell, guide) pairs", tables$f1$f1, named(tables$f1$tool, tables$f1$model), tables$f1$screen)
seeds_note(tables$f1)

# Every model against the model of the same name, against the ceiling and against the best of all peers. A tool may have run on
# some of the seeds: a difference is that of means over the seeds both ran on.
f1_by_run <- tapply(tables$f1$f1, list(
  paste(tables$f1$tool, tables$f1$model), factor(tables$f1$screen, screens), factor(tables$f1$seed, seeds)
), mean)
less <- function(ours, other, screen) {
  if (!all(c(ours, other) %in% rownames(f1_by_run))) return(NA_real_)
  mean(f1_by_run[ours, screen, ] - f1_by_run[other, screen, ], na.rm = TRUE)
}
ours <- unique(tables$f1[tables$f1$tool == "kaichi", c("model", "screen")])
ours <- ours[order(match(ours$model, guide_models()$model), match(ours$screen, screens)), ]
differences <- function(other) {
  mapply(function(model, screen) less(paste("kaichi", model), other(model), screen), ours$model, ours$screen)
}
same <- differences(function(model) paste("kaichi-0.2.0", model))
if (any(is.finite(same))) {
  show_table("Mean F1 less that of the same model in kaichi 0.2.0 (aim: at least -0.002)", same, ours$model, ours$screen)
}
same <- differences(function(model) paste("crispat", model))
if (any(is.finite(same))) {
  show_table("Mean F1 less that of the same model in crispat", same, ours$model, ours$screen)
  seeds_note(tables$f1[tables$f1$tool == "crispat", ])
}
show_table("Ceiling less mean F1", -differences(function(model) "ceiling ceiling"), ours$model, ours$screen)
# The best peer is the one that leaves us the smallest lead, each on the seeds it ran on.
peers <- setdiff(rownames(f1_by_run), c("ceiling ceiling", paste("kaichi", models)))
if (length(peers) > 0L) {
  lead <- do.call(pmin, c(lapply(peers, function(peer) differences(function(model) peer)), na.rm = TRUE))
  show_table("Mean F1 less that of the best model of all peers", lead, ours$model, ours$screen)
  seeds_note(tables$f1)
}

curves <- pooled(tables$bins, c("screen", "model"))
utils::write.csv(curves, file.path(out, "reliability.csv"), row.names = FALSE)
errors <- do.call(rbind, lapply(split(curves, curves[c("model", "screen")], drop = TRUE), function(g) {
  data.frame(screen = g$screen[1L], model = g$model[1L], ece = ece(g))
}))
errors <- errors[order(match(errors$model, c("ceiling", models)), match(errors$screen, screens)), ]
show_table("Expected calibration error (posterior above 0.01, ten bins, seeds pooled)", errors$ece, errors$model, errors$screen)
overall <- pooled(transform(tables$bins, screen = "all"), c("screen", "model"))
overall <- overall[order(match(overall$model, c("ceiling", models))), ]
show_table(
  "Reliability: share of true pairs by posterior, all screens", overall$true, overall$model,
  sprintf("%.1f-%.1f", overall$bin / 10, (overall$bin + 1) / 10), digits = 2L
)
if (!is.null(tables$fdr)) {
  for (rate in rates) {
    at <- tables$fdr[tables$fdr$fdr == rate, ]
    show_table(sprintf("Realised false discovery rate at fdr = %s", rate), at$realised, at$model, at$screen)
  }
}
rare <- stats::aggregate(cbind(right, called, carried) ~ carriers + tool + model, tables$rarity, sum)
rare <- rare[order(
  match(rare$tool, unique(tables$f1$tool)), match(rare$model, guide_models()$model), match(rare$carriers, rarity)
), ]
show_table(
  "F1 by the number of cells that carry the guide, all screens",
  2 * rare$right / (rare$called + rare$carried), named(rare$tool, rare$model), paste(rare$carriers, "cells")
)
seeds_note(tables$rarity)
single <- tables$single
single <- single[order(match(single$model, guide_models()$model)), ]
show_table("False calls of single UMIs (20,000 x 100, background 0.05, clean signal)", single$false, single$model, single$tool, 0L)
# What vignettes/models.Rmd shows.
means <- function(table, measure, value) {
  row <- stats::aggregate(list(value = table[[value]]), table[c("tool", "model", "screen")], mean, na.rm = TRUE)
  data.frame(measure = measure, row, stringsAsFactors = FALSE)
}
in_short <- rbind(
  means(tables$f1, "f1", "f1"),
  means(transform(errors, tool = "kaichi"), "ece", "ece"),
  if (!is.null(tables$fdr)) do.call(rbind, lapply(rates, function(rate) {
    means(transform(tables$fdr[tables$fdr$fdr == rate, ], tool = "kaichi"), paste("fdr", rate), "realised")
  }))
)
utils::write.csv(transform(in_short, value = round(value, 4)), file.path(out, "summary.csv"), row.names = FALSE, quote = FALSE)
if (length(failures) > 0L) cat("\n### Failures\n\n", paste0("- ", failures, "\n"), sep = "")
message("Tables as csv in ", out)
