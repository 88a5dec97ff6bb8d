# The time and memory that every model takes, beside kaichi 0.2.0 (Python) and the bare reading of the file, on simulated
# screens of growing size.
#
#   Rscript tools/bench/speed/run.R --python PEERS_PYTHON [--sizes 20000x100,200000x1000] [--models umi,poisson_gauss]
#
#   --python PATH     a Python with anndata, h5py and kaichi 0.2.0 from PyPI; default the environment variable PEERS_PYTHON
#   --sizes CxG,...   cells x guides (default 20000x100,200000x1000,1000000x5000; 2000000x10000 takes long)
#   --models a,b      of guide_models() (default all)
#   --jobs 1,2        threads
#   --formats a,b     plain, gzip: how the h5ad is compressed (default plain)
#   --stream yes|no   whether to go from file to file too, with assign_guides(path, output = ), for the models that do so in blocks of
#                     cells (default no)
#   --peer yes|no     whether to run kaichi 0.2.0 (default yes)
#   --peer-jobs 1,2   its threads (default those of --jobs)
#   --screen NAME     of guide_screens() (default easy)
#   --set n=v,...     parameters of simulate_guides() to change (default ambient_mean=6.5: some 8 stored counts a cell)
#   --repeats N       runs of each; the least time of each column counts (default 1)
#   --limit SECONDS   of one run, after which it is stopped and left out (default 600)
#   --out FOLDER      for the screens and speed.csv (default a temporary folder; screens that are there are used again)
#
# Every run is a process of its own. Times are of assign_guides(path), or assign() of the peer, without the start of R or
# Python; "barcodes" is what it takes to look at all barcodes of the result afterwards, because kaichi makes R's strings only
# then. Peak memory is of the whole process. Prints Markdown. Reads no network.
script <- normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
given <- commandArgs(trailingOnly = TRUE)

# Linux says it in kB; elsewhere it is unknown.
peak_memory <- function() {
  status <- "/proc/self/status"
  if (!file.exists(status)) return(NA)
  as.numeric(gsub("\\D", "", grep("^VmHWM", readLines(status), value = TRUE))) / 1024
}

# The R job: prints one line of numbers, in the order of `r_columns`.
r_columns <- c("wall", "cpu", "memory", "barcodes", "read", "score", "decide")
if (identical(given[1L], "job")) {
  suppressMessages(library(kaichi))
  path <- given[2L]
  model <- given[3L]
  jobs <- as.integer(given[4L])
  seconds <- function(code) {
    time <- system.time(code, gcFirst = FALSE)
    c(time[["elapsed"]], sum(time[c("user.self", "sys.self")]))
  }
  if (given[5L] == "whole") {
    took <- seconds(calls <- assign_guides(path, model = model, n_jobs = jobs))
    memory <- peak_memory()
    cat(took, memory, seconds(sum(nchar(calls$cells$cell_barcode)))[1L], NA, NA, NA)
  } else if (given[5L] == "stream") {
    output <- tempfile("calls", dirname(path), fileext = ".h5ad")
    took <- seconds(assign_guides(path, model = model, n_jobs = jobs, output = output))
    unlink(output)
    cat(took, peak_memory(), NA, NA, NA, NA)
  } else {
    internal <- asNamespace("kaichi")
    info <- internal$find_model(model)
    rule <- internal$choose_rule(info, NULL, NULL, NULL)
    read <- seconds(counts <- internal$guide_counts(path, n_jobs = jobs))
    score <- seconds(scores <- internal$score_counts(counts, info, jobs, model_control()))
    decide <- seconds(internal$decide_scores(scores, info, rule$rule, rule$cut, 0, jobs))
    cat(NA, NA, NA, NA, read[1L], score[1L], decide[1L])
  }
  quit()
}

library(kaichi)
options <- local({
  known <- c("python", "sizes", "models", "jobs", "formats", "stream", "peer", "peer-jobs", "screen", "set", "repeats", "limit", "out")
  values <- list(
    python = Sys.getenv("PEERS_PYTHON"), sizes = "20000x100,200000x1000,1000000x5000", jobs = "1,2", formats = "plain",
    stream = "no", peer = "yes", screen = "easy", set = "ambient_mean=6.5", repeats = "1", limit = "600"
  )
  while (length(given) > 0L) {
    name <- sub("^--", "", given[1L])
    if (!startsWith(given[1L], "--") || !name %in% known || length(given) < 2L) {
      stop("Unknown or incomplete option ", given[1L], ". Known: ", paste0("--", known, collapse = " "), ", each with a value.")
    }
    values[[name]] <- given[2L]
    given <- given[-(1:2)]
  }
  values
})
if (!nzchar(options$python)) stop("Give a Python with anndata and h5py: --python PATH.")
pieces <- function(text) strsplit(text, ",", fixed = TRUE)[[1L]]
models <- if (is.null(options$models)) guide_models()$model else pieces(options$models)
formats <- pieces(options$formats)
if (!all(formats %in% c("plain", "gzip"))) stop("--formats knows plain and gzip.")
changes <- lapply(pieces(options$set), function(change) strsplit(change, "=", fixed = TRUE)[[1L]])
changes <- stats::setNames(
  lapply(changes, function(change) utils::type.convert(change[2L], as.is = TRUE)),
  vapply(changes, `[`, "", 1L)
)
out <- if (is.null(options$out)) tempfile("speed") else options$out
dir.create(out, showWarnings = FALSE, recursive = TRUE)
peers <- file.path(dirname(script), "peers.py")
peer_jobs <- pieces(if (is.null(options[["peer-jobs"]])) options$jobs else options[["peer-jobs"]])
in_blocks <- if (options$stream == "yes") c("umi", "max", "ratio", "gauss", "poisson_gauss")
# What 0.2.0 has.
peer_models <- if (options$peer == "yes") {
  c("umi", "max", "ratio", "quantiles", "poisson_gauss", "poisson", "neg_binomial", "binomial", "beta2", "beta3", "gauss")
}

failures <- character()
# The numbers that a process prints last; the least of the repeats. NA where it fails or takes too long.
run <- function(what, program, ..., columns) {
  message(what)
  runs <- lapply(seq_len(as.integer(options$repeats)), function(i) {
    line <- suppressWarnings(system2(
      program, c(..., NULL), stdout = TRUE, stderr = if (nzchar(Sys.getenv("VERBOSE"))) "" else FALSE,
      timeout = as.numeric(options$limit)
    ))
    numbers <- suppressWarnings(as.numeric(strsplit(trimws(utils::tail(c("", line), 1L)), " +")[[1L]]))
    if (!is.null(attr(line, "status")) || length(numbers) != length(columns)) return(NULL)
    stats::setNames(numbers, columns)
  })
  runs <- Filter(Negate(is.null), runs)
  if (length(runs) == 0L) {
    failures <<- c(failures, what)
    return(stats::setNames(rep(NA_real_, length(columns)), columns))
  }
  do.call(pmin, runs)
}

# Writes the screen of that size, once. The number of its stored counts.
write_screen <- function(folder, cells, guides) {
  if (!file.exists(file.path(folder, "counts"))) {
    message("simulating ", basename(folder))
    dir.create(folder, showWarnings = FALSE)
    counts <- do.call(simulate_guides, c(list(options$screen), changes, list(n_cells = cells, n_guides = guides)))$counts
    writeBin(counts@p, file.path(folder, "indptr"), endian = "little")
    writeBin(counts@i, file.path(folder, "guide"), endian = "little")
    writeBin(counts@x, file.path(folder, "count"), endian = "little")
    writeLines(sprintf("%.0f %.0f", cells, guides), file.path(folder, "shape"))
    if (system2(options$python, c(shQuote(peers), "write", shQuote(folder), "--gzip")) != 0L) {
      stop("The screen could not be written; see above.")
    }
    writeLines(sprintf("%.0f", length(counts@x)), file.path(folder, "counts"))
    unlink(file.path(folder, c("indptr", "guide", "count")))
  }
  as.numeric(readLines(file.path(folder, "counts")))
}

rows <- list()
add <- function(...) rows[[length(rows) + 1L]] <<- data.frame(..., stringsAsFactors = FALSE)
rscript <- file.path(R.home("bin"), "Rscript")
for (size in pieces(options$sizes)) {
  cells <- as.numeric(sub("x.*", "", size))
  guides <- as.numeric(sub(".*x", "", size))
  folder <- file.path(normalizePath(out), size)
  n_counts <- write_screen(folder, cells, guides)
  for (format in formats) {
    file <- shQuote(file.path(folder, paste0(format, ".h5ad")))
    what <- paste(size, format)
    python <- function(job, ...) {
      run(paste(c(what, job, ...), collapse = " "), options$python, shQuote(peers), job, file, ..., columns = c("wall", "cpu", "memory"))
    }
    record <- function(tool, model, jobs, numbers) {
      all <- stats::setNames(rep(NA_real_, length(r_columns)), r_columns)
      all[names(numbers)] <- numbers
      add(size = size, counts = n_counts, format = format, tool = tool, model = model, jobs = jobs, as.list(all))
    }
    # The first reads the file into the page cache.
    python("floor")
    record("h5py", "read", 1L, python("floor"))
    for (model in models) {
      for (jobs in as.integer(pieces(options$jobs))) {
        ours <- function(part) {
          run(paste(what, "R", model, jobs, part), rscript, shQuote(script), "job", file, model, jobs, part, columns = r_columns)
        }
        whole <- ours("whole")
        phases <- ours("phases")
        whole[is.na(whole)] <- phases[is.na(whole)]
        record("kaichi", model, jobs, whole)
        if (model %in% in_blocks) record("kaichi to a file", model, jobs, ours("stream"))
        if (model %in% peer_models && jobs %in% peer_jobs) record("kaichi 0.2.0", model, jobs, python("kaichi", model, jobs))
      }
    }
  }
}
table <- do.call(rbind, rows)
utils::write.csv(table, file.path(out, "speed.csv"), row.names = FALSE)

shown <- function(x, digits = 2L) ifelse(is.na(x), "-", formatC(x, digits = digits, format = "f", big.mark = ","))
markdown <- function(title, columns) {
  cat("\n### ", title, "\n\n| ", paste(names(columns), collapse = " | "), " |\n|", strrep(" --- |", length(columns)), "\n", sep = "")
  cat(paste0("| ", do.call(paste, c(unname(columns), sep = " | ")), " |\n"), sep = "")
}
same <- function(tool, rows, model = rows$model, jobs = rows$jobs) {
  match(paste(rows$size, rows$format, tool, model, jobs), paste(table$size, table$format, table$tool, table$model, table$jobs))
}
cat("kaichi ", as.character(packageVersion("kaichi")), ", ", parallel::detectCores(), " cores, ", R.version.string, "\n", sep = "")
for (format in formats) {
  for (size in pieces(options$sizes)) {
    at <- table[table$size == size & table$format == format, ]
    floor <- table[same("h5py", at, "read", 1L), ]
    peer <- table[same("kaichi 0.2.0", at), ]
    peer[at$tool != "kaichi", ] <- NA
    markdown(
      paste0(size, " cells x guides, ", formatC(at$counts[1L], format = "d", big.mark = ","), " counts, ", format),
      list(
        tool = at$tool, model = at$model, threads = at$jobs, "wall s" = shown(at$wall), "CPU s" = shown(at$cpu),
        "peak MB" = shown(at$memory, 0L), "wall / h5py" = shown(at$wall / floor$wall, 1L),
        "CPU / h5py" = shown(at$cpu / floor$cpu, 1L), "wall 0.2.0 / wall" = shown(peer$wall / at$wall, 1L),
        "CPU 0.2.0 / CPU" = shown(peer$cpu / at$cpu, 1L), "read s" = shown(at$read), "score s" = shown(at$score),
        "decide s" = shown(at$decide), "barcodes s" = shown(at$barcodes)
      )
    )
  }
}

# How the cost grows: the slope of log time on log counts, from the sizes where time means something.
ours <- table[table$tool == "kaichi" & !is.na(table$wall) & table$wall > 0.05, ]
slopes <- do.call(rbind, lapply(split(ours, ours[c("format", "model", "jobs")], drop = TRUE), function(g) {
  if (length(unique(g$counts)) < 2L) return(NULL)
  slope <- stats::coef(stats::lm(log(wall) ~ log(counts), g))[[2L]]
  data.frame(format = g$format[1L], model = g$model[1L], jobs = g$jobs[1L], sizes = nrow(g), slope = slope)
}))
if (!is.null(slopes)) {
  markdown("Slope of log wall time on log counts (times above 0.05 s)", list(
    format = slopes$format, model = slopes$model, threads = slopes$jobs, sizes = slopes$sizes, slope = shown(slopes$slope)
  ))
}
two <- table[table$tool == "kaichi" & table$jobs == 2L, ]
one <- table[same("kaichi", two, jobs = 1L), ]
long <- which(one$score > 0.1)
if (length(long) > 0L) {
  markdown("What a second thread gives (scoring that takes 0.1 s or more)", list(
    size = two$size[long], format = two$format[long], model = two$model[long],
    "score 1 thread s" = shown(one$score[long]), "score 2 threads s" = shown(two$score[long]),
    times = shown(one$score[long] / two$score[long])
  ))
}
if (length(failures) > 0L) cat("\n### Failed, or stopped after ", options$limit, " s\n\n", paste0("- ", failures, "\n"), sep = "")
message("speed.csv is in ", out)
