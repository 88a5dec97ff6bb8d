# Calls from file to file against calls in memory. The parts that only Python can read need KAICHI_TEST_PYTHON, a Python with
# anndata; those of `kaichi decide` KAICHI_TEST_CLI, the command line of kaichi 0.2.0 from crates.io.
guides_file <- function() system.file("extdata", "guides.h5ad", package = "kaichi")

new_file <- function(end = ".h5ad", env = parent.frame()) {
  folder <- own_folder(env)
  file.path(folder, paste0("calls", end))
}

# A folder that goes with the test.
own_folder <- function(env) {
  folder <- tempfile("stream")
  dir.create(folder)
  do.call(on.exit, list(bquote(unlink(.(folder), recursive = TRUE)), add = TRUE), envir = env)
  folder
}

obs_column <- function(file, column) read_guide_file(file, batch = column)$batch

# What the file says, as far as read_guides() can read it.
expect_in_file <- function(file, calls, label) {
  expect_identical(read_guides(file), calls$counts, label = label)
  expect_identical(read_guides(file, layer = "assigned"), calls$assigned, label = label)
  expect_identical(obs_column(file, "n_guides_detected"), as.character(calls$cells$n_guides_detected), label = label)
  expect_identical(obs_column(file, "is_unassigned"), as.character(calls$cells$is_unassigned), label = label)
  expect_identical(obs_column(file, "is_multi_infected"), as.character(calls$cells$is_multi_infected), label = label)
}

expect_done <- function(done, calls, file, label) {
  same <- c("fits", "screen", "model", "params", "version")
  expect_named(done, c("output", "n_cells", same))
  expect_identical(done[same], calls[same], label = label)
  expect_identical(done$n_cells, nrow(calls$cells))
  expect_identical(done$output, file)
}

test_that("every model writes the calls that it gives in memory", {
  for (model in all_models()) {
    file <- new_file()
    calls <- assign_guides(guides_file(), model = model, min_umi = 2)
    expect_invisible(done <- assign_guides(guides_file(), model = model, min_umi = 2, output = file))
    expect_done(done, calls, file, model)
    expect_in_file(file, calls, model)
    expect_identical(list.files(dirname(file), all.files = TRUE, no.. = TRUE), "calls.h5ad")
  }
})

test_that("a false discovery rate, threads, batches and settings are those of the calls in memory", {
  settings <- list(
    list(model = "poisson_gauss", fdr = 0.001),
    list(model = "poisson_gauss", fdr = 1e-12),
    list(model = "gauss", min_log_odds = 45),
    list(model = "ambient", min_log_odds = -0.5),
    list(model = "poisson", min_log_odds = 3, batch = "lane"),
    list(model = "gauss", fdr = 0.2, n_jobs = 1),
    list(model = "umi", control = model_control(umi_threshold = 3)),
    list(model = "ratio", control = model_control(min_fraction = 0.7)),
    list(model = "poisson_gauss", batch = "lane", n_jobs = 2),
    list(model = "quantiles", quantile = 0.3),
    list(model = "quantiles", min_confidence = 0.3),
    list(model = "beta2", batch = "lane")
  )
  for (setting in settings) {
    file <- new_file()
    calls <- do.call(assign_guides, c(list(guides_file()), setting))
    expect_gt(nrow(calls$pairs), 0L)
    done <- do.call(assign_guides, c(list(guides_file(), output = file), setting))
    expect_done(done, calls, file, setting$model)
    expect_in_file(file, calls, setting$model)
  }
})

test_that("sparse rows, sparse columns and dense counts, of any version, give one output", {
  path <- function(name) test_path("fixtures", paste0("anndata-", name, ".h5ad"))
  control <- model_control(umi_threshold = 4)
  for (name in c("0.12.19-csr", "0.12.19-csc", "0.12.19-dense", "0.12.19-strings", "0.8.0-csr", "0.7.8-csr", "0.7.8-csc")) {
    for (layer in list(NULL, "doubled")) {
      for (model in c("umi", "poisson")) {
        file <- new_file()
        calls <- assign_guides(path(name), model = model, layer = layer, control = control)
        assign_guides(path(name), model = model, layer = layer, control = control, output = file)
        expect_in_file(file, calls, paste(name, model))
        # Columns of the input are kept where they say what they are.
        if (!startsWith(name, "0.7")) {
          for (column in c("lane", "lane_category", "lane_nullable", "odd")) {
            expect_identical(obs_column(file, column), obs_column(path(name), column), label = paste(name, column))
          }
        }
      }
    }
  }
})

test_that("equal calls are equal files, at any time", {
  files <- c(new_file(), new_file("-later.h5ad"))
  assign_guides(guides_file(), model = "umi", output = files[1])
  Sys.sleep(1.1)
  assign_guides(guides_file(), model = "umi", output = files[2])
  bytes <- lapply(files, function(file) readBin(file, "raw", file.size(file)))
  expect_identical(bytes[[2]], bytes[[1]])
})

test_that("an output is input again, and its columns are replaced", {
  first <- new_file()
  again <- new_file("-again.h5ad")
  assign_guides(guides_file(), output = first)
  assign_guides(first, model = "umi", output = again)
  expect_in_file(again, assign_guides(guides_file(), model = "umi"), "again")
  # Of the first calls, what the second do not have is gone.
  expect_error(obs_column(again, "set_probability"), "has no column \"set_probability\"", class = "kaichi_error_batch")
  expect_identical(obs_column(again, "lane"), obs_column(guides_file(), "lane"))
  expect_error(assign_guides(first, model = "umi", output = again), class = "kaichi_error_file")
  assign_guides(first, model = "umi", output = again, overwrite = TRUE, min_umi = 50)
  expect_in_file(again, assign_guides(guides_file(), model = "umi", min_umi = 50), "replaced")
})

test_that("what fails leaves neither an output nor a part of one, and an older output as it was", {
  file <- new_file()
  fixtures <- c("bad-negative", "bad-name-twice", "bad-indptr-end", "bad-mudata", "bad-10x")
  for (model in c("umi", "poisson")) {
    for (fixture in test_path("fixtures", paste0(fixtures, ".h5ad"))) {
      plain <- tryCatch(assign_guides(fixture, model = model), kaichi_error = identity)
      to_file <- tryCatch(assign_guides(fixture, model = model, output = file), kaichi_error = identity)
      expect_s3_class(plain, "kaichi_error")
      expect_identical(to_file, plain, label = fixture)
      expect_length(list.files(dirname(file), all.files = TRUE, no.. = TRUE), 0L)
    }
  }
  writeLines("older", file)
  expect_error(
    assign_guides(test_path("fixtures", "bad-negative.h5ad"), output = file, overwrite = TRUE), class = "kaichi_error_counts"
  )
  expect_identical(readLines(file), "older")
})

test_that("outputs that cannot be are refused before any work", {
  counts <- read_guides(guides_file())
  folder <- own_folder(environment())
  here <- function(name) file.path(folder, name)
  file.copy(guides_file(), here("in.h5ad"))
  file.copy(guides_file(), here("there.h5ad"))
  dir.create(here("folder.h5ad"))
  text <- function(...) {
    condition <- tryCatch(assign_guides(...), kaichi_error = identity)
    paste0("<", class(condition)[1L], "> ", gsub(folder, "FOLDER", conditionMessage(condition), fixed = TRUE))
  }
  expect_snapshot(writeLines(c(
    text(counts, output = here("out.h5ad")),
    text(here("in.h5ad"), output = here("in.h5ad"), overwrite = TRUE),
    text(here("in.h5ad"), output = here("./in.h5ad"), model = "poisson", overwrite = TRUE),
    text(here("in.h5ad"), output = here("there.h5ad")),
    text(here("in.h5ad"), output = here("folder.h5ad"), overwrite = TRUE),
    text(here("in.h5ad"), output = here("nowhere/out.h5ad")),
    text(here("in.h5ad"), output = here("out.csv")),
    text(here("in.h5ad"), output = c("a.h5ad", "b.h5ad")),
    text(here("in.h5ad"), output = here("out.h5ad"), overwrite = NA),
    text(here("in.h5ad"), output = here("out.h5ad"), layer = 3),
    text(here("in.h5ad"), output = here("out.h5ad"), layer = "none"),
    text(here("absent.h5ad"), output = here("out.h5ad"))
  )))
  expect_setequal(list.files(folder, all.files = TRUE, no.. = TRUE), c("in.h5ad", "there.h5ad", "folder.h5ad"))
})

test_that("calls in memory go to .h5ad and .h5mu", {
  counts <- read_guides(guides_file())
  calls <- assign_guides(counts)
  file <- new_file()
  expect_identical(write_h5ad_calls(calls, file), file)
  expect_in_file(file, calls, "h5ad")
  expect_error(write_h5ad_calls(calls, file), class = "kaichi_error_file")
  expect_error(write_h5ad_calls(calls, file, rna = guides_file(), overwrite = TRUE), "is for the format", class = "kaichi_error_argument")

  # The file is opened as what it is; the modalities are tested in core/tests/stream.rs and by Python below.
  mudata <- new_file(".h5mu")
  write_h5ad_calls(calls, mudata, rna = guides_file())
  expect_identical(rawToChar(readBin(mudata, "raw", 6L)), "MuData")
  expect_error(write_h5ad_calls(calls, mudata, rna = mudata, overwrite = TRUE), "is the input itself", class = "kaichi_error_argument")
  expect_error(write_h5ad_calls(calls, new_file(".h5mu"), rna = "absent.h5ad"), "does not exist", class = "kaichi_error_file")
  expect_length(list.files(dirname(mudata), all.files = TRUE, no.. = TRUE), 1L)
})

test_that("write_calls() writes them", {
  calls <- assign_guides(read_guides(guides_file()), model = "umi")
  file <- new_file()
  write_calls(calls, file)
  expect_in_file(file, calls, "h5ad")
  # The format counts, not the name.
  mudata <- new_file(".file")
  write_calls(calls, mudata, format = "h5mu", rna = file)
  expect_identical(rawToChar(readBin(mudata, "raw", 6L)), "MuData")
  expect_error(write_calls(calls, new_file(), rna = file), "`rna` means nothing", class = "kaichi_error_argument")
})

test_that("JSON of settings is JSON", {
  expect_identical(
    as_json(list(a = 1e-6, b = NULL, c = c("x\"y", "\\"), d = TRUE, e = NA, f = Inf, g = c(1, 20000000))),
    '{"a":1e-06,"b":null,"c":["x\\"y","\\\\"],"d":true,"e":null,"f":null,"g":[1,2e+07]}'
  )
})

# Runs Python code, which stops with an error where something is not as it should be.
run_python <- function(code, ...) {
  python <- Sys.getenv("KAICHI_TEST_PYTHON")
  skip_if(!nzchar(python), "KAICHI_TEST_PYTHON is not set")
  script <- tempfile(fileext = ".py")
  writeLines(code, script)
  out <- suppressWarnings(system2(python, shQuote(c(script, ...)), stdout = TRUE, stderr = TRUE))
  expect_null(attr(out, "status"), label = paste(out, collapse = "\n"))
}

test_that("anndata reads counts, scores, calls, tables and settings, bit for bit", {
  file <- new_file()
  assign_guides(guides_file(), output = file)
  scores <- score_guides(guides_file())
  calls <- assign_guides(guides_file())
  folder <- dirname(file)
  writeBin(scores$posterior@x, file.path(folder, "scores"), endian = "little")
  writeBin(calls$cells$set_probability, file.path(folder, "sets"), endian = "little")
  writeBin(calls$fits$mu, file.path(folder, "mu"), endian = "little")
  writeLines(c(calls$cells$cell_barcode), file.path(folder, "cells"))
  writeLines(ifelse(is.na(calls$cells$guide_id), "nan", calls$cells$guide_id), file.path(folder, "guides"))
  writeLines(as.character(calls$cells$umi_count), file.path(folder, "umis"))
  run_python(c(
    "import sys, json, numpy as np, anndata",
    "path, folder = sys.argv[1:]",
    "a = anndata.read_h5ad(path)",
    "lines = lambda name: open(folder + '/' + name, encoding='utf-8').read().splitlines()",
    "s = a.layers['scores']",
    "assert (s.indices == a.X.indices).all() and (s.indptr == a.X.indptr).all()",
    "assert a.X.indices.dtype == np.int32 and a.X.indptr.dtype == np.int32",
    "assert s.data.tobytes() == open(folder + '/scores', 'rb').read()",
    "assert a.obs['set_probability'].values.tobytes() == open(folder + '/sets', 'rb').read()",
    "assert a.var['mu'].values.tobytes() == open(folder + '/mu', 'rb').read()",
    "assert list(a.obs_names) == lines('cells')",
    "assert [str(x) for x in a.obs['guide_id']] == lines('guides')",
    "assert [str(x) for x in a.obs['guide_identity']] == lines('guides')",
    "assert ['NA' if x is None or x != x else str(int(x)) for x in a.obs['umi_count'].astype(object).where(a.obs['umi_count'].notna(), None)] == lines('umis')",
    "assert a.layers['assigned'].sum() == a.obs['n_guides_detected'].sum() == a.var['n_cells_called'].sum()",
    "assert a.obs['is_unassigned'].dtype == bool",
    "k = a.uns['kaichi']",
    "assert k['model'] == 'poisson_gauss' and k['stage'] == 'assigned' and k['min_confidence'] == 0.8",
    "assert json.loads(k['model_params'])['starts'] == 8",
    "assert 'lane' in a.obs"
  ), file, folder)
})

test_that("Python reads the modalities of an .h5mu", {
  calls <- assign_guides(read_guides(guides_file())[, 1:100])
  file <- new_file(".h5mu")
  write_h5ad_calls(calls, file, rna = guides_file())
  run_python(c(
    "import sys, h5py",
    "from anndata.io import read_elem",
    "f = h5py.File(sys.argv[1])",
    "assert dict(f.attrs)['encoding-type'] == 'MuData' and list(f['mod'].attrs['mod-order']) == ['rna', 'guide']",
    "guide, rna = read_elem(f['mod/guide']), read_elem(f['mod/rna'])",
    "assert guide.n_obs == 100 and rna.n_obs > 100 and 'assigned' in guide.layers and 'lane' in rna.obs",
    "obs = read_elem(f['obs'])",
    "for name, one in (('guide', guide), ('rna', rna)):",
    "    at = read_elem(f['obsmap'][name]).ravel()",
    "    assert list(obs.index[at > 0]) == list(one.obs_names[at[at > 0] - 1])",
    "    assert (read_elem(f['obsm'][name]).ravel() == (at > 0)).all()"
  ), file)
})

test_that("kaichi 0.2.0 decides anew from the output", {
  cli <- Sys.getenv("KAICHI_TEST_CLI")
  skip_if(!nzchar(cli), "KAICHI_TEST_CLI is not set")
  for (model in c("poisson_gauss", "poisson")) {
    file <- new_file()
    assign_guides(guides_file(), model = model, output = file)
    scores <- score_guides(guides_file(), model = model)
    for (cut in c(0.3, 0.999)) {
      decided <- new_file()
      status <- system2(cli, c("decide", "--scores", shQuote(file), "--min-confidence", cut, "--output", shQuote(decided)), stderr = FALSE)
      expect_identical(status, 0L)
      expect_identical(read_guides(decided, layer = "assigned"), decide_guides(scores, min_confidence = cut)$assigned)
    }
  }
})
