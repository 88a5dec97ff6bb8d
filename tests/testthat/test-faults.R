# Full disks, files cut short, folders without the right to write, several writers, signals: the old file is intact or the new one
# complete. Signals go to other R processes; a small file system is mounted where the user may do that.

guides_file <- function() system.file("extdata", "guides.h5ad", package = "kaichi")

fault_folder <- function(env = parent.frame()) {
  folder <- tempfile("faults")
  dir.create(folder)
  do.call(on.exit, list(bquote(unlink(.(folder), recursive = TRUE)), add = TRUE), envir = env)
  folder
}

contents <- function(folder) sort(list.files(folder, all.files = TRUE, no.. = TRUE))

# A file system of that many kB, or skips. Taking it away fails where a file in it is still open, so that is a check too.
small_disk <- function(kb, env = parent.frame()) {
  folder <- fault_folder(env)
  mounted <- suppressWarnings(system2("mount", c("-t", "tmpfs", "-o", sprintf("size=%dk", kb), "tmpfs", folder), stdout = FALSE, stderr = FALSE))
  skip_if(mounted != 0L, "a file system cannot be mounted here")
  do.call(on.exit, list(bquote(system2("umount", c("-l", .(folder)), stderr = FALSE)), add = TRUE, after = FALSE), envir = env)
  folder
}

expect_closed <- function(disk) expect_identical(system2("umount", disk, stderr = FALSE), 0L)

# Starts R with that code, which finds the `values` by name.
start_r <- function(code, values, folder) {
  script <- tempfile("child", folder, ".R")
  saveRDS(values, paste0(script, ".rds"))
  writeLines(c("library(kaichi)", sprintf("list2env(readRDS(%s), globalenv())", deparse(paste0(script, ".rds"))), code), script)
  run_behind(file.path(R.home("bin"), "Rscript"), c("--vanilla", shQuote(script)), stderr = paste0(script, ".log"))
  script
}

# TRUE as soon as `ready()` is; FALSE after a minute.
wait_for <- function(ready, seconds = 60) {
  end <- Sys.time() + seconds
  while (!ready()) {
    if (Sys.time() > end) return(FALSE)
    Sys.sleep(0.005)
  }
  TRUE
}

alive <- function(pid) tools::pskill(pid, 0L)

# Two different calls of one screen, large enough that writing takes a while.
two_calls <- function() {
  counts <- simulate_guides("easy", n_cells = 4000, n_guides = 20, seed = 1)$counts
  list(assign_guides(counts, model = "umi"), assign_guides(counts, model = "umi", control = model_control(umi_threshold = 40)))
}

writers <- list(
  h5ad = list(end = ".h5ad", write = function(calls, file) write_calls(calls, file, overwrite = TRUE)),
  h5mu = list(end = ".h5mu", write = function(calls, file) write_calls(calls, file, overwrite = TRUE)),
  csv = list(end = ".csv", write = function(calls, file) write_calls(calls, file, overwrite = TRUE)),
  csv.gz = list(end = ".csv.gz", write = function(calls, file) write_calls(calls, file, overwrite = TRUE)),
  crispat = list(end = ".crispat", write = function(calls, file) write_calls(calls, file, format = "crispat", overwrite = TRUE))
)

test_that("a full disk is a file error, and leaves the old file", {
  calls <- two_calls()
  for (name in names(writers)) {
    writer <- writers[[name]]
    whole <- file.path(fault_folder(), paste0("whole", writer$end))
    writer$write(calls[[1L]], whole)
    kb <- ceiling(file.size(whole) / 1024)
    for (share in c(0.1, 0.5, 0.9)) {
      disk <- small_disk(max(4, floor(kb * share / 4) * 4 + 4))
      file <- file.path(disk, paste0("calls", writer$end))
      writeLines("older", file)
      expect_error(writer$write(calls[[1L]], file), "cannot be written", class = "kaichi_error_file")
      expect_identical(contents(disk), basename(file), label = paste(name, share))
      expect_identical(readLines(file), "older")
      expect_closed(disk)
    }
    disk <- small_disk(8 * kb + 4096)
    file <- file.path(disk, paste0("calls", writer$end))
    writer$write(calls[[1L]], file)
    expect_identical(file.size(file), file.size(whole))
    expect_closed(disk)
  }
})

test_that("a full disk stops assign_guides(output = ), by blocks and at once", {
  whole <- file.path(fault_folder(), "whole.h5ad")
  for (model in c("umi", "poisson")) {
    assign_guides(guides_file(), model = model, output = whole, overwrite = TRUE)
    for (share in c(0.05, 0.3, 0.6, 0.9)) {
      disk <- small_disk(floor(file.size(whole) / 4096 * share) * 4 + 4)
      file <- file.path(disk, "calls.h5ad")
      writeLines("older", file)
      expect_error(
        assign_guides(guides_file(), model = model, output = file, overwrite = TRUE), "cannot be written", class = "kaichi_error_file"
      )
      expect_identical(contents(disk), "calls.h5ad")
      expect_identical(readLines(file), "older")
      expect_closed(disk)
    }
  }
  expect_identical(read_guides(whole), read_guides(guides_file()))
})

test_that("a full disk leaves a folder of Cell Ranger's files as it was", {
  calls <- two_calls()
  disk <- small_disk(256)
  folder <- file.path(disk, "crispr_analysis")
  write_calls(calls[[2L]], folder)
  before <- lapply(list.files(folder, full.names = TRUE), readLines)
  writeBin(raw(1e6), file.path(disk, "filler")) |> suppressWarnings()
  expect_error(write_calls(calls[[1L]], folder, overwrite = TRUE), "cannot be written", class = "kaichi_error_file")
  expect_identical(lapply(list.files(folder, full.names = TRUE), readLines), before)
  expect_setequal(contents(folder), list.files(folder))
  expect_error(write_calls(calls[[1L]], file.path(disk, "other")), "cannot be written", class = "kaichi_error_file")
  expect_identical(contents(disk), c("crispr_analysis", "filler"))
  expect_closed(disk)
})

test_that("a file cut anywhere is an error or its counts", {
  folder <- fault_folder()
  for (path in c(guides_file(), test_path("fixtures", c("parts-csr-int8.h5ad", "anndata-0.12.19-csc.h5ad", "anndata-0.7.8-dense.h5ad")))) {
    bytes <- readBin(path, "raw", file.size(path))
    right <- read_guides(path)
    file <- file.path(folder, "cut.h5ad")
    errors <- 0L
    for (length in c(seq(0, length(bytes) - 1, by = 512), length(bytes) - 1:8)) {
      writeBin(bytes[seq_len(length)], file)
      got <- tryCatch(read_guides(file), kaichi_error = identity)
      if (inherits(got, "kaichi_error")) errors <- errors + 1L
      expect_true(inherits(got, c("kaichi_error_file", "kaichi_error_format")) || identical(got, right), label = paste(basename(path), length))
    }
    expect_gt(errors, 20L)
    writeBin(bytes, file)
    expect_identical(read_guides(file), right)
  }
})

test_that("a file cut while it is read is an error or its counts", {
  skip_on_os("windows")
  folder <- fault_folder()
  file <- file.path(folder, "large.h5ad")
  counts <- simulate_guides("easy", n_cells = 20000, n_guides = 60, ambient_mean = 40, seed = 1)$counts
  write_calls(assign_guides(counts, model = "umi"), file)
  bytes <- readBin(file, "raw", file.size(file))
  for (delay in seq(0, 0.15, by = 0.01)) {
    writeBin(bytes, file)
    system(sprintf("(sleep %s; truncate -s %d %s) &", delay, length(bytes) %/% 2L, shQuote(file)))
    got <- tryCatch(read_guides(file), kaichi_error = identity)
    expect_true(inherits(got, c("kaichi_error_file", "kaichi_error_format")) || identical(got, counts), label = paste("after", delay))
    expect_true(wait_for(function() file.size(file) < length(bytes)))
  }
})

test_that("a pipe is refused, not waited for", {
  skip_on_os("windows")
  pipe <- file.path(fault_folder(), "pipe.h5ad")
  skip_if(system2("mkfifo", shQuote(pipe)) != 0L, "no pipes here")
  expect_error(read_guides(pipe), "no regular file", class = "kaichi_error_file")
  expect_error(assign_guides(pipe), "no regular file", class = "kaichi_error_file")
})

test_that("a folder that may not be written to is a file error", {
  skip_on_os("windows")
  calls <- two_calls()
  root <- identical(system2("id", "-u", stdout = TRUE), "0")
  # Root writes wherever the file system lets it.
  folder <- if (root) small_disk(1024) else fault_folder()
  ends <- vapply(writers, `[[`, "", "end")
  for (file in file.path(folder, paste0("calls", ends))) writeLines("older", file)
  if (root) {
    skip_if(system2("mount", c("-o", "remount,ro", folder), stderr = FALSE) != 0L, "a file system cannot be made read-only here")
  } else {
    Sys.chmod(folder, "0555")
    on.exit(Sys.chmod(folder, "0755"), add = TRUE, after = FALSE)
  }
  for (writer in writers) {
    file <- file.path(folder, paste0("calls", writer$end))
    expect_error(writer$write(calls[[1L]], file), "cannot be written", class = "kaichi_error_file")
    expect_identical(readLines(file), "older")
  }
  expect_error(write_calls(calls[[1L]], file.path(folder, "crispr")), "cannot be written", class = "kaichi_error_file")
  expect_error(
    assign_guides(guides_file(), output = file.path(folder, "calls.h5ad"), overwrite = TRUE), "cannot be written", class = "kaichi_error_file"
  )
  expect_setequal(contents(folder), paste0("calls", ends))
})

test_that("an output that is the input by another name is refused, and the input stays", {
  skip_on_os("windows")
  folder <- fault_folder()
  input <- file.path(folder, "in.h5ad")
  file.copy(guides_file(), input)
  file.symlink(input, file.path(folder, "link.h5ad"))
  sum <- tools::md5sum(input)
  for (output in c("in.h5ad", "link.h5ad", "./in.h5ad")) {
    for (model in c("umi", "poisson")) {
      expect_error(
        assign_guides(input, model = model, output = file.path(folder, output), overwrite = TRUE), "is the input itself",
        class = "kaichi_error_argument"
      )
    }
  }
  expect_identical(tools::md5sum(input), sum)
  # Another hard link is another name: the input keeps its content.
  file.link(input, file.path(folder, "hard.h5ad"))
  assign_guides(input, model = "umi", output = file.path(folder, "hard.h5ad"), overwrite = TRUE)
  expect_identical(tools::md5sum(input), sum)
  expect_identical(contents(folder), c("hard.h5ad", "in.h5ad", "link.h5ad"))
})

# What a file of two_calls() holds: 1 or 2, or 0 for anything else.
which_calls <- function(file, calls) {
  h5ad <- grepl("h5ad$", file)
  # Read once: another process may replace it.
  found <- if (h5ad) read_guides(file, layer = "assigned") else utils::read.csv(file)$umi_count
  match(TRUE, vapply(calls, function(one) identical(found, if (h5ad) one$assigned else one$pairs$umi_count), TRUE), nomatch = 0L)
}

write_forever <- c(
  "writeLines(as.character(Sys.getpid()), pid_file)",
  "repeat for (one in calls) write_calls(one, file, overwrite = TRUE)"
)

test_that("SIGKILL in the middle of writing leaves one whole file or the other", {
  skip_on_cran()
  skip_on_os("windows")
  calls <- two_calls()
  for (end in c(".h5ad", ".csv", ".csv.gz")) {
    killed_inside <- 0L
    for (attempt in 1:4) {
      folder <- fault_folder()
      out <- file.path(folder, "out")
      dir.create(out)
      file <- file.path(out, paste0("calls", end))
      pid_file <- file.path(folder, "pid")
      start_r(write_forever, list(calls = calls, file = file, pid_file = pid_file), folder)
      expect_true(wait_for(function() file.exists(file)))
      pid <- as.integer(readLines(pid_file))
      Sys.sleep(0.037 * attempt)
      # The temporary name is there while a file is being written.
      wait_for(function() length(contents(out)) > 1L, 5)
      tools::pskill(pid, tools::SIGKILL)
      expect_true(wait_for(function() !alive(pid)))
      expect_gt(which_calls(file, calls), 0L)
      killed_inside <- killed_inside + (length(contents(out)) > 1L)
      # What the killed one left is in nobody's way.
      write_calls(calls[[2L]], file, overwrite = TRUE)
      expect_identical(which_calls(file, calls), 2L)
    }
    expect_gt(killed_inside, 0L)
  }
})

test_that("SIGINT in the middle of writing leaves one whole file, nothing else, and the session", {
  skip_on_cran()
  skip_on_os("windows")
  calls <- two_calls()
  input <- file.path(fault_folder(), "in.h5ad")
  write_calls(calls[[1L]], input)
  code <- c(
    "writeLines(as.character(Sys.getpid()), pid_file)",
    "stopped <- tryCatch(repeat for (one in calls) write(one, file), interrupt = function(i) 'interrupt', error = conditionMessage)",
    # The session does all that before.
    "write(calls[[2L]], file)",
    "writeLines(stopped, paste0(done_file, '.part'))",
    "file.rename(paste0(done_file, '.part'), done_file)"
  )
  ways <- list(
    list(".h5ad", function(calls, file) kaichi::write_calls(calls, file, overwrite = TRUE)),
    list(".csv.gz", function(calls, file) kaichi::write_calls(calls, file, overwrite = TRUE)),
    list(".h5ad", eval(bquote(function(calls, file) {
      threshold <- calls$params$umi_threshold
      kaichi::assign_guides(
        .(input), model = "umi", output = file, overwrite = TRUE, control = kaichi::model_control(umi_threshold = threshold)
      )
    })))
  )
  for (way in ways) {
    folder <- fault_folder()
    out <- file.path(folder, "out")
    dir.create(out)
    file <- file.path(out, paste0("calls", way[[1L]]))
    pid_file <- file.path(folder, "pid")
    done_file <- file.path(folder, "done")
    start_r(code, list(calls = calls, file = file, pid_file = pid_file, done_file = done_file, write = way[[2L]]), folder)
    expect_true(wait_for(function() file.exists(file)))
    pid <- as.integer(readLines(pid_file))
    tools::pskill(pid, tools::SIGINT)
    expect_true(wait_for(function() file.exists(done_file)))
    expect_identical(readLines(done_file), "interrupt")
    expect_identical(contents(out), basename(file))
    expect_identical(which_calls(file, calls), 2L)
  }
})

test_that("two processes that write one file leave one whole file at any time", {
  skip_on_cran()
  skip_on_os("windows")
  calls <- two_calls()
  for (end in c(".h5ad", ".csv")) {
    folder <- fault_folder()
    out <- file.path(folder, "out")
    dir.create(out)
    file <- file.path(out, paste0("calls", end))
    code <- c(
      "for (time in 1:20) for (one in calls) write_calls(one, file, overwrite = TRUE)",
      "file.create(done_file)"
    )
    done <- file.path(folder, c("done 1", "done 2"))
    for (done_file in done) start_r(code, list(calls = calls, file = file, done_file = done_file), folder)
    expect_true(wait_for(function() file.exists(file)))
    seen <- c()
    while (!all(file.exists(done)) && length(seen) < 2000L) {
      # A reader may see that the file was replaced while it read.
      seen <- c(seen, tryCatch(which_calls(file, calls), kaichi_error_file = function(e) NA))
    }
    expect_true(all(file.exists(done)))
    expect_false(any(seen == 0L, na.rm = TRUE))
    expect_gt(sum(!is.na(seen)), 0L)
    expect_identical(which_calls(file, calls), 2L)
    expect_identical(contents(out), basename(file))
  }
})

test_that("without `overwrite`, one of several processes writes the file and the others say that it exists", {
  skip_on_cran()
  skip_on_os("windows")
  calls <- two_calls()
  folder <- fault_folder()
  out <- file.path(folder, "out")
  dir.create(out)
  file <- file.path(out, "calls.h5ad")
  go <- file.path(folder, "go")
  code <- c(
    "while (!file.exists(go)) Sys.sleep(0.001)",
    "got <- tryCatch({ write_calls(calls[[number]], file); 'written' }, kaichi_error_file = conditionMessage)",
    "writeLines(got, paste0(done_file, '.part'))",
    "file.rename(paste0(done_file, '.part'), done_file)"
  )
  done <- file.path(folder, paste("done", 1:3))
  for (number in 1:3) {
    start_r(code, list(calls = calls[c(1L, 2L, 1L)], number = number, file = file, go = go, done_file = done[number]), folder)
  }
  Sys.sleep(2)
  file.create(go)
  expect_true(wait_for(function() all(file.exists(done))))
  said <- vapply(done, function(file) paste(readLines(file), collapse = " "), "")
  expect_identical(sum(said == "written"), 1L)
  expect_match(said[said != "written"], "exist")
  expect_identical(contents(out), "calls.h5ad")
  expect_identical(which_calls(file, calls), c(1L, 2L, 1L)[said == "written"])
})
