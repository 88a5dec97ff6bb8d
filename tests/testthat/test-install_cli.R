# The command line against R. Its program is KAICHI_TEST_PROGRAM, or that which cargo built in the repository; without one these
# tests skip, but for those of the errors.
guides_file <- function() system.file("extdata", "guides.h5ad", package = "kaichi")

program <- function() {
  name <- if (.Platform$OS.type == "windows") "kaichi.exe" else "kaichi"
  target <- Sys.getenv("CARGO_TARGET_DIR", test_path("..", "..", "src", "rust", "target"))
  built <- c(Sys.getenv("KAICHI_TEST_PROGRAM"), file.path(target, c("release", "debug"), name))
  built <- built[nzchar(built) & file.exists(built)]
  if (length(built) == 0L) skip("the command line is not built: cargo build --package kaichi-cli")
  # A build of older sources would be another program.
  built[which.max(file.mtime(built))]
}

run <- function(...) {
  said <- suppressWarnings(system2(program(), c(..., "--quiet"), stdout = TRUE, stderr = TRUE))
  expect_null(attr(said, "status"), info = paste(c(..., said), collapse = " "))
  said
}

bytes <- function(file) readBin(file, "raw", file.size(file))

own_folder <- function(env = parent.frame()) {
  folder <- tempfile("cli")
  dir.create(folder)
  do.call(on.exit, list(bquote(unlink(.(folder), recursive = TRUE)), add = TRUE), envir = env)
  folder
}

test_that("every model writes the file that R writes, byte for byte", {
  program()
  folder <- own_folder()
  a <- file.path(folder, "r.h5ad")
  b <- file.path(folder, "cli.h5ad")
  settings <- function(model) {
    info <- guide_models()[guide_models()$model == model, ]
    c(
      list(list(), list(min_umi = 3)),
      if (info$rule == "min_confidence") list(list(min_confidence = 0.6)),
      if (info$rule == "min_confidence" && info$confidence == "posterior") {
        list(list(fdr = 0.05), list(fdr = 1e-8), list(min_log_odds = 12.5))
      },
      if (info$rule == "quantile") list(list(quantile = 0.3)),
      if (info$uses_batch) list(list(batch = "lane"))
    )
  }
  for (model in all_models()) {
    for (setting in settings(model)) {
      do.call(assign_guides, c(list(guides_file(), model, output = a, overwrite = TRUE), setting))
      flags <- unlist(Map(function(name, value) c(paste0("--", gsub("_", "-", name)), value), names(setting), setting))
      run("assign", "--counts", shQuote(guides_file()), "--model", model, "--output", shQuote(b), "--overwrite", flags)
      expect_identical(bytes(b), bytes(a), label = paste(c(model, flags), collapse = " "))
    }
  }
})

test_that("settings, tables and the steps are those of R", {
  program()
  folder <- own_folder()
  path <- function(name) file.path(folder, name)
  control <- model_control(starts = 3, tolerance = 1e-4, iterations = 1e5, gates = c(min_cells = 5))
  assign_guides(guides_file(), "gauss", control = control, output = path("r.h5ad"))
  writeLines("{\"starts\": 3, \"tolerance\": 1e-4, \"gate_cells\": 5}", path("params.json"))
  run(
    "assign", shQuote(guides_file()), "--model", "gauss", "--iterations", "100000", "--output", shQuote(path("cli.h5ad")),
    "--params", shQuote(paste0("@", path("params.json")))
  )
  expect_identical(bytes(path("cli.h5ad")), bytes(path("r.h5ad")))

  scores <- score_guides(guides_file(), "neg_binomial", batch = "lane")
  calls <- decide_guides(scores, fdr = 0.01, fdr_by = "guide", min_umi = 2)
  write_calls(calls, path("r.csv"))
  run("score", shQuote(guides_file()), "--model", "neg_binomial", "--batch", "lane", "--output", shQuote(path("scores.h5ad")))
  decide <- function(...) run("decide", "--scores", shQuote(path("scores.h5ad")), ...)
  decide("--fdr", "0.01", "--fdr-by", "guide", "--min-umi", "2", "--output", shQuote(path("cli.csv")))
  expect_identical(readLines(path("cli.csv")), readLines(path("r.csv")))

  # Rates at which log odds decide, kept by the file.
  for (rule in list(list(fdr = 1e-10), list(min_log_odds = 30))) {
    write_calls(do.call(decide_guides, c(list(scores), rule)), path("r.csv"), overwrite = TRUE)
    decide(paste0("--", gsub("_", "-", names(rule))), rule[[1L]], "--output", shQuote(path("cli.csv")), "--overwrite")
    expect_identical(readLines(path("cli.csv")), readLines(path("r.csv")))
  }

  # Without an output, the cells.
  text <- decide()
  cells <- utils::read.csv(text = text, na.strings = "", colClasses = c(cell_barcode = "character", guide_id = "character"))
  # Base R's own reading of numbers may be off in the last place.
  expect_equal(cells, decide_guides(scores)$cells, tolerance = 1e-15)
})

test_that("a guide table goes where R's goes", {
  program()
  folder <- own_folder()
  path <- function(name) file.path(folder, name)
  ids <- rownames(read_guides(guides_file()))
  table <- data.frame(
    guide_id = rev(c(ids, "extra")), construct = rep(c("A", "B"), length.out = length(ids) + 1L), `a note` = "\u00e9, \"x\"",
    target = rev(c(ifelse(seq_along(ids) %% 3 == 0, "", paste0("T", seq_along(ids))), "T")), status = "of the table",
    check.names = FALSE
  )
  # As Seurat would name it.
  table$guide_id[table$guide_id == ids[2]] <- sub("_", "|", ids[2])
  counts <- read_guides(guides_file())
  rownames(counts)[2] <- gsub("_", "-", ids[2])
  Matrix::writeMM(counts, path("matrix.mtx"))
  writeLines(rownames(counts), path("features.tsv"))
  writeLines(colnames(counts), path("barcodes.tsv"))
  write_table(as.list(table), path("guides.csv.gz"))
  as_is <- transform(table, guide_id = rev(c(ids, "extra")))
  utils::write.table(as_is, path("guides.tsv"), sep = "\t", row.names = FALSE, na = "")

  flag <- function(name) c("--guides", shQuote(path(name)))
  for (model in c("poisson_gauss", "ambient", "umi", "beta2")) {
    for (input in list(c(guides_file(), "guides.tsv"), c(folder, "guides.csv.gz"))) {
      suppressMessages(assign_guides(input[1], model, guides = path(input[2]), output = path("r.h5ad"), overwrite = TRUE))
      write <- function(name) c("--output", shQuote(path(name)), "--overwrite")
      run("assign", shQuote(input[1]), "--model", model, flag(input[2]), write("cli.h5ad"))
      expect_identical(bytes(path("cli.h5ad")), bytes(path("r.h5ad")), label = paste(model, input[2]))

      calls <- suppressMessages(assign_guides(input[1], model, guides = path(input[2])))
      # Calls in R's memory have no scores to write.
      for (name in c("x.csv", if (model == "umi") "x.h5mu")) {
        write_calls(calls, path(name), overwrite = TRUE)
        expected <- bytes(path(name))
        run("assign", shQuote(input[1]), "--model", model, flag(input[2]), write(name))
        expect_identical(bytes(path(name)), expected, label = paste(model, name))
      }
      text <- run("assign", shQuote(input[1]), "--model", model, flag(input[2]))
      expect_identical(utils::read.csv(text = text, na.strings = "")$target, calls$cells$target)

      if (model == "umi") next
      # With the table at the first step, or at the second.
      scores <- suppressMessages(score_guides(input[1], model, guides = path(input[2])))
      write_calls(decide_guides(scores), path("r.csv"), overwrite = TRUE)
      for (at in c("score", "decide")) {
        run("score", shQuote(input[1]), "--model", model, if (at == "score") flag(input[2]), write("scores.h5ad"))
        run("decide", shQuote(path("scores.h5ad")), if (at == "decide") flag(input[2]), write("cli.csv"))
        expect_identical(bytes(path("cli.csv")), bytes(path("r.csv")), label = paste(model, input[2], at))
        run("decide", shQuote(path("scores.h5ad")), if (at == "decide") flag(input[2]), write("decided.h5ad"))
        run("decide", shQuote(path("decided.h5ad")), write("again.csv"))
        expect_identical(bytes(path("again.csv")), bytes(path("r.csv")))
      }
    }
  }
})

test_that("what a file says of its guides goes where R puts it", {
  program()
  folder <- own_folder()
  path <- function(name) file.path(folder, name)
  for (input in c(guides_file(), test_path("fixtures", "tenx.h5"))) {
    for (name in c("x.h5ad", "x.csv", "x.h5mu")) {
      calls <- suppressMessages(assign_guides(input, "umi"))
      if (name == "x.h5ad") {
        suppressMessages(assign_guides(input, "umi", output = path(name), overwrite = TRUE))
      } else {
        write_calls(calls, path(name), overwrite = TRUE)
      }
      expected <- bytes(path(name))
      run("assign", shQuote(input), "--model", "umi", "--output", shQuote(path(name)), "--overwrite")
      expect_identical(bytes(path(name)), expected, label = paste(input, name))
    }
    expect_false(is.null(calls$cells$target))
  }
})

test_that("the folder of Cell Ranger is that of R", {
  program()
  folder <- own_folder()
  path <- function(name) file.path(folder, name)
  for (model in c("umi", "poisson", "gauss")) {
    write_calls(assign_guides(guides_file(), model), path("r"), overwrite = TRUE)
    run("assign", shQuote(guides_file()), "--model", model, "--output", shQuote(path("cli")), "--overwrite")
    expect_identical(list.files(path("cli"), all.files = TRUE), list.files(path("r"), all.files = TRUE))
    for (name in list.files(path("r"))) {
      expect_identical(readLines(path(file.path("cli", name))), readLines(path(file.path("r", name))), label = paste(model, name))
    }
  }
})

test_that("the output of R is scores for the command line", {
  program()
  folder <- own_folder()
  write_and_read <- function(calls) {
    write_calls(calls, file.path(folder, "r.csv"), overwrite = TRUE)
    utils::read.csv(file.path(folder, "r.csv"))
  }
  file <- file.path(folder, "calls.h5ad")
  for (batch in list(NULL, "lane")) {
    assign_guides(guides_file(), "beta2", batch = batch, output = file, overwrite = TRUE)
    said <- run("decide", shQuote(file), "--min-confidence", "0.95", "--format", "csv")
    expected <- decide_guides(score_guides(guides_file(), "beta2", batch = batch), min_confidence = 0.95)
    pairs <- utils::read.csv(text = said, colClasses = c(cell_barcode = "character", guide_id = "character"))
    expect_equal(pairs[names(expected$pairs)], expected$pairs, tolerance = 1e-15)
    expect_identical(pairs$target, write_and_read(expected)$target)
  }
})

test_that("arguments are checked before anything is built", {
  folder <- own_folder()
  expect_error(install_cli(1), class = "kaichi_error_argument")
  expect_error(install_cli(folder, overwrite = NA), class = "kaichi_error_argument")
  program <- file.path(folder, if (.Platform$OS.type == "windows") "kaichi.exe" else "kaichi")
  writeLines("kept", program)
  expect_error(install_cli(folder), "exists", class = "kaichi_error_file")
  expect_identical(readLines(program), "kept")
})

test_that("a build that fails is an error with cargo's words, and leaves nothing", {
  skip_on_os("windows")
  folder <- own_folder()
  tools <- own_folder()
  # A cargo that is new enough and cannot build.
  for (name in c("cargo", "rustc")) {
    writeLines(c("#!/bin/sh", "case $1 in --version) echo 1.99.0;; *) echo no network; exit 101;; esac"), file.path(tools, name))
    Sys.chmod(file.path(tools, name), "755")
  }
  path <- Sys.getenv("PATH")
  on.exit(Sys.setenv(PATH = path), add = TRUE)
  Sys.setenv(PATH = paste(tools, path, sep = ":"))
  expect_error(install_cli(folder, verbose = FALSE), "no network", class = "kaichi_error_package")
  expect_length(list.files(folder, all.files = TRUE, no.. = TRUE), 0L)
})

test_that("the program is built from what is installed", {
  # Minutes, and crates from the network.
  skip_if(Sys.getenv("KAICHI_TEST_INSTALL_CLI") == "", "KAICHI_TEST_INSTALL_CLI is not set")
  folder <- own_folder()
  expect_message(installed <- install_cli(folder, verbose = FALSE), "PATH", class = "kaichi_message_choice")
  expect_match(system2(installed, "--version", stdout = TRUE), as.character(utils::packageVersion("kaichi")), fixed = TRUE)
})
