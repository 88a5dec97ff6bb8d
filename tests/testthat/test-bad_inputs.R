# The table of bad inputs: each is refused with a class and a text, makes no file, and leaves the session able to work.
# hostile.tgz is written by tools/fixtures/write_h5ad_hostile.py; bad-*.h5ad are in test-read_guides.R.

small <- matrix(
  c(9, 0, 1, 0, 8, 0, 7, 0, 0, 0, 0, 6), 3L, dimnames = list(c("g1", "g2", "g3"), c("c1", "c2", "c3", "c4"))
)
changed <- function(value, at = 5L) replace(small, at, value)
renamed <- function(guides = rownames(small), cells = colnames(small)) {
  dimnames(small) <- list(guides, cells)
  small
}

# Runs `code` in an empty folder: its error as text, and that nothing is made and the next call works.
refused <- function(code, name) {
  folder <- tempfile("bad")
  dir.create(folder)
  old <- setwd(folder)
  on.exit({
    setwd(old)
    unlink(folder, recursive = TRUE)
  })
  condition <- tryCatch(
    {
      force(code)
      simpleCondition("it is accepted")
    },
    error = identity
  )
  if (!inherits(condition, "kaichi_error")) stop(name, " is not refused by kaichi: ", conditionMessage(condition))
  expect_false(inherits(condition, "kaichi_error_internal"), label = paste(name, conditionMessage(condition)))
  expect_identical(list.files(folder, all.files = TRUE, no.. = TRUE), character(), label = name)
  expect_identical(sum(assign_guides(small, model = "umi")$assigned), 4)
  # What HDF5 says of an error differs between its versions.
  text <- sub("((be read|be opened): ).*(\\.\n)", "\\1<HDF5>\\3", conditionMessage(condition))
  paste0(name, ": <", class(condition)[1L], ">\n  ", gsub("\"[^\"]*/(hostile-)", "\"\\1", text))
}

cases <- function(...) {
  calls <- eval(substitute(alist(...)))
  vapply(names(calls), function(name) refused(eval(calls[[name]], parent.frame(3L)), name), "", USE.NAMES = FALSE)
}

test_that("matrices that hold no counts are refused", {
  sparse <- as_counts(small)
  torn <- sparse
  torn@x[2L] <- NaN
  expect_snapshot(writeLines(cases(
    "negative" = assign_guides(changed(-1)),
    "fraction" = assign_guides(changed(0.5)),
    "not a number" = assign_guides(changed(NaN)),
    "missing" = assign_guides(changed(NA)),
    "infinite" = assign_guides(changed(Inf)),
    "beyond 32 bits" = assign_guides(changed(2^31)),
    "sparse not a number" = assign_guides(torn),
    "text" = assign_guides(matrix("1", 3L, 4L, dimnames = dimnames(small))),
    "complex" = assign_guides(small + 0i),
    "list" = assign_guides(matrix(as.list(small), 3L, dimnames = dimnames(small))),
    "no guides" = assign_guides(small[0L, ]),
    "no cells" = assign_guides(small[, 0L]),
    "no names" = assign_guides(unname(small)),
    "no guide names" = assign_guides(renamed(guides = NULL)),
    "no cell names" = assign_guides(renamed(cells = NULL)),
    "empty guide name" = assign_guides(renamed(guides = c("g1", "", "g3"))),
    "missing guide name" = assign_guides(renamed(guides = c("g1", NA, "g3"))),
    "guide twice" = assign_guides(renamed(guides = c("g1", "g2", "g1"))),
    "cell twice" = assign_guides(renamed(cells = c("c1", "c2", "c2", "c4"))),
    "a vector" = assign_guides(1:10),
    "a data frame" = assign_guides(as.data.frame(small)),
    "NULL" = assign_guides(NULL),
    "a function" = assign_guides(mean),
    "a three-way array" = assign_guides(array(1, c(2L, 2L, 2L)))
  )))
})

test_that("arguments out of their range are refused", {
  expect_snapshot(writeLines(cases(
    "no such model" = assign_guides(small, model = "poison"),
    "two models" = assign_guides(small, model = c("umi", "max")),
    "model missing" = assign_guides(small, model = NA_character_),
    "model by number" = assign_guides(small, model = 1),
    "confidence above 1" = assign_guides(small, min_confidence = 1.5),
    "confidence below 0" = assign_guides(small, min_confidence = -0.1),
    "confidence not a number" = assign_guides(small, min_confidence = NaN),
    "confidence as text" = assign_guides(small, min_confidence = "0.5"),
    "two rules" = assign_guides(small, min_confidence = 0.5, fdr = 0.1),
    "fdr of umi" = assign_guides(small, model = "umi", fdr = 0.1),
    "quantile of poisson" = assign_guides(small, model = "poisson", quantile = 0.5),
    "min_umi below 0" = assign_guides(small, min_umi = -1),
    "min_umi missing" = assign_guides(small, min_umi = NA),
    "no jobs" = assign_guides(small, n_jobs = 0),
    "half a job" = assign_guides(small, n_jobs = 1.5),
    "control is a list" = assign_guides(small, control = list(starts = 1)),
    "no starts" = assign_guides(small, control = model_control(starts = 0)),
    "tolerance below 0" = assign_guides(small, control = model_control(tolerance = -1)),
    "iterations without end" = assign_guides(small, control = model_control(iterations = Inf)),
    "unknown argument" = assign_guides(small, cutoff = 3),
    "batch too short" = assign_guides(small, model = "poisson", batch = c("a", "b")),
    "batch missing" = assign_guides(small, model = "poisson", batch = c("a", NA, "b", "b")),
    "batch is a list" = assign_guides(small, model = "poisson", batch = list(1, 2, 3, 4)),
    "covariate too short" = assign_guides(small, model = "ambient", covariate = 1:3),
    "covariate of 0" = assign_guides(small, model = "ambient", covariate = c(0, 1, 1, 1)),
    "covariate of other cells" = assign_guides(small, model = "ambient", covariate = c(a = 1, b = 1, c = 1, d = 1)),
    "covariate of umi" = assign_guides(small, model = "umi", covariate = 1:4),
    "layer of a matrix" = assign_guides(small, layer = "counts"),
    "modality of a matrix" = assign_guides(small, modality = "guides"),
    "workers that are none" = assign_guides(small, BPPARAM = 4)
  )))
})

test_that("the other verbs refuse what is not theirs", {
  calls <- assign_guides(small, model = "umi")
  scores <- score_guides(small)
  expect_snapshot(writeLines(cases(
    "decide: calls" = decide_guides(calls),
    "decide: confidence" = decide_guides(scores, min_confidence = 2),
    "decide: fdr_by" = decide_guides(scores, fdr = 0.1, fdr_by = "cell"),
    "score: model" = score_guides(small, model = "nothing"),
    "score: counts" = score_guides(changed(-3)),
    "simulate: screen" = simulate_guides("no such screen"),
    "simulate: cells" = simulate_guides("easy", n_cells = -1),
    "simulate: parameter" = simulate_guides("easy", ambient = 3),
    "constructs: calls" = call_constructs(small, data.frame(guide_id = "g1", construct = "a")),
    "constructs: table" = call_constructs(calls, data.frame(guide = "g1")),
    "columns: format" = cell_columns(calls, "no such format"),
    "attach: object" = attach_calls(1:3, calls),
    "attached: object" = attached_calls(small),
    "as_sce: calls" = as_sce(small),
    "as_sceptre: calls" = as_sceptre(list()),
    "read: absent" = read_guides("absent.h5ad"),
    "read: a folder" = read_guides("."),
    "read: empty name" = read_guides(""),
    "read: a NUL device" = read_guides("/dev/null"),
    "read: layer" = read_guides("absent.h5ad", layer = 1),
    "write: calls" = write_calls(small, "out.csv"),
    "write: path" = write_calls(calls, c("a.csv", "b.csv")),
    "write: end" = write_calls(calls, "out.xlsx"),
    "write: format" = write_calls(calls, "out.csv", format = "xlsx"),
    "write: folder" = write_calls(calls, "nowhere/out.csv"),
    "write: rna" = write_calls(calls, "out.h5mu", rna = "absent.h5ad"),
    "write: rna of csv" = write_calls(calls, "out.csv", rna = "absent.h5ad"),
    "write: separator" = write_calls(assign_guides(renamed(guides = c("g|1", "g2", "g3")), model = "umi"), "out"),
    "output of a matrix" = assign_guides(small, output = "out.h5ad"),
    "output: end" = assign_guides("absent.h5ad", output = "out.txt"),
    "output: folder" = assign_guides("absent.h5ad", output = "nowhere/out.h5ad"),
    "output of nothing" = assign_guides("absent.h5ad", output = "out.h5ad")
  )))
})

# The most memory that this process has had, in MB, where the system says so.
most_memory <- function() {
  status <- "/proc/self/status"
  if (!file.exists(status)) return(NA)
  as.numeric(gsub("[^0-9]", "", grep("^VmHWM", readLines(status), value = TRUE))) / 1024
}

test_that("valid HDF5 that is no honest .h5ad is refused, by every way in, without the memory it claims", {
  folder <- tempfile("hostile")
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  utils::untar(test_path("fixtures", "hostile.tgz"), exdir = folder, tar = "internal")
  files <- sort(list.files(folder), method = "radix")
  expect_gt(length(files), 60L)
  before <- most_memory()
  batch <- function(name) if (name == "hostile-size-batch.h5ad") "lane"
  texts <- vapply(files, function(name) {
    path <- file.path(folder, name)
    text <- refused(read_guide_file(path, batch = batch(name)), name)
    if (is.null(batch(name))) {
      # The same from file to file, by blocks and at once.
      for (model in c("umi", "poisson")) refused(assign_guides(path, model = model, output = "out.h5ad"), paste(name, model))
    }
    text
  }, "", USE.NAMES = FALSE)
  expect_snapshot(writeLines(texts))
  if (!is.na(before)) expect_lt(most_memory() - before, 400)
})
