new_folder <- function() {
  folder <- tempfile()
  dir.create(folder)
  folder
}

read_plain <- function(...) utils::read.csv(..., check.names = FALSE, encoding = "UTF-8")

test_that("csv holds every pair, and reads back as it was", {
  folder <- new_folder()
  calls <- assign_guides(small_screen()$counts)
  for (name in c("calls.csv", "calls.csv.gz")) {
    path <- file.path(folder, name)
    expect_identical(withVisible(write_calls(calls, path))[["visible"]], FALSE)
    expect_identical(read_plain(path), calls$pairs, label = name)
  }
  expect_identical(readBin(file.path(folder, "calls.csv.gz"), "raw", 2L), as.raw(c(0x1f, 0x8b)))

  calls <- awkward_calls()
  path <- file.path(folder, "targets.csv")
  expect_identical(write_calls(calls, path, guides = guide_table_of()), path)
  back <- read_plain(path)
  expect_identical(back$guide_id, calls$pairs$guide_id)
  expect_identical(back$target, guide_table_of()$target[match(calls$pairs$guide_id, awkward_guides)])
  write_calls(calls, file.path(folder, "assignments.csv"), format = "crispat")
  expect_identical(
    read_plain(file.path(folder, "assignments.csv")),
    stats::setNames(calls$pairs[1:3], c("cell", "gRNA", "UMI_counts"))
  )
  expect_setequal(list.files(folder, all.files = TRUE, no.. = TRUE), c("calls.csv", "calls.csv.gz", "targets.csv", "assignments.csv"))
})

test_that("numbers have the fewest digits, what is missing none, and there is no warning", {
  expect_no_warning(fields <- kaichi:::csv_field(c(0.1, NA, 1 / 3, NaN, 1e6)))
  expect_identical(fields, c("0.1", "", "0.3333333333333333", "", "1000000"))
})

test_that("Cell Ranger's files say what the calls say", {
  folder <- file.path(new_folder(), "crispr_analysis")
  calls <- awkward_calls()
  write_calls(calls, folder)
  expect_setequal(list.files(folder, all.files = TRUE, no.. = TRUE), cellranger_files)

  per_cell <- read_plain(file.path(folder, "protospacer_calls_per_cell.csv"))
  expect_named(per_cell, c("cell_barcode", "num_features", "feature_call", "num_umis"))
  guides <- strsplit(per_cell$feature_call, "|", fixed = TRUE)
  umis <- strsplit(per_cell$num_umis, "|", fixed = TRUE)
  expect_identical(lengths(guides), per_cell$num_features)
  long <- data.frame(
    cell_barcode = rep(per_cell$cell_barcode, lengths(guides)), guide_id = unlist(guides), umi_count = as.integer(unlist(umis))
  )
  long <- long[order(match(long$cell_barcode, calls$cells$cell_barcode)), ]
  expect_equal(long, calls$pairs[1:3], ignore_attr = TRUE)

  summary <- read_plain(file.path(folder, "protospacer_calls_summary.csv"))
  expect_identical(summary$feature_call[1:4], c(
    "No guide molecules", "No confident call", "1 protospacer assigned", "More than 1 protospacer assigned"
  ))
  n <- calls$cells$n_guides_detected
  expect_identical(
    summary$num_cells[1:4], c(sum(Matrix::colSums(calls$counts) == 0), sum(n == 0L), sum(n == 1L), sum(n > 1L))
  )
  expect_identical(summary$num_cells[-(1:4)], as.integer(table(factor(per_cell$feature_call, unique(per_cell$feature_call)))))
  expect_equal(summary$pct_cells, summary$num_cells / 60)
  expect_identical(summary$median_umis[1:4], rep("None", 4L))
  total <- vapply(umis, function(u) sum(as.numeric(u)), 0)
  for (row in 5:nrow(summary)) {
    of <- total[per_cell$feature_call == summary$feature_call[row]]
    expect_equal(as.numeric(summary$median_umis[row]), stats::median(of))
    expect_equal(as.numeric(summary$stddev_umis[row]), sqrt(mean((of - mean(of))^2)))
  }

  thresholds <- read_plain(file.path(folder, "protospacer_umi_thresholds.csv"))
  expect_named(thresholds, c("Protospacer", "UMI threshold"))
  for (row in seq_len(nrow(thresholds))) {
    guide <- thresholds$Protospacer[row]
    expect_identical(calls$counts[guide, ] >= thresholds[row, 2L], calls$assigned[guide, ] == 1, label = guide)
  }
})

test_that("thresholds are left out where calls are not those above a count", {
  folder <- new_folder()
  calls <- awkward_calls()
  calls$counts["NT#1", which(calls$assigned["NT#1", ] == 0)[1L]] <- 1000
  write_calls(calls, folder)
  thresholds <- read_plain(file.path(folder, "protospacer_umi_thresholds.csv"))
  expect_setequal(thresholds$Protospacer, setdiff(awkward_guides, "NT#1"))
  # Calls without any have no thresholds, and those that were there go.
  writeLines("mine", file.path(folder, "feature_reference.csv"))
  write_calls(awkward_calls(control = model_control(umi_threshold = 1000)), folder, overwrite = TRUE)
  expect_setequal(list.files(folder), c(cellranger_files[1:3], "feature_reference.csv"))
  expect_identical(readLines(file.path(folder, "protospacer_calls_per_cell.csv")), "cell_barcode,num_features,feature_call,num_umis")
  expect_identical(read_plain(file.path(folder, "protospacer_calls_summary.csv"))$num_cells, c(1L, 60L, 0L, 0L))
})

test_that("Python reads Cell Ranger's files as its own", {
  python <- python_with("json", "csv", "statistics")
  folder <- file.path(new_folder(), "crispr_analysis")
  calls <- awkward_calls()
  write_calls(calls, folder)
  # The files are made again from cells_per_protospacer.json and the UMIs by Python's own csv and statistics.
  write_lines(
    paste(calls$pairs$cell_barcode, calls$pairs$umi_count, calls$pairs$guide_id, sep = "\t"), file.path(dirname(folder), "pairs.tsv")
  )
  out <- run_python(python, '
import csv, json, statistics, sys, io
folder, pairs = sys.argv[1:]
umi = {}
for line in open(pairs, encoding="utf-8"):
    cell, n, guide = line.rstrip("\\n").split("\\t")
    umi[cell, guide] = int(n)
lists = json.load(open(folder + "/cells_per_protospacer.json", encoding="utf-8"))
assert {(c, g) for g, cells in lists.items() for c in cells} == set(umi)
of_cell = {}
for guide, cells in lists.items():
    for cell in cells:
        of_cell.setdefault(cell, []).append(guide)
def text(rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\\n").writerows(rows)
    return out.getvalue()
rows = [("cell_barcode", "num_features", "feature_call", "num_umis")]
calls = {}
for cell, guides in of_cell.items():
    counts = [umi[cell, g] for g in guides]
    rows.append((cell, len(guides), "|".join(guides), "|".join(map(str, counts))))
    calls.setdefault("|".join(guides), []).append(sum(counts))
print(text(rows) == open(folder + "/protospacer_calls_per_cell.csv", encoding="utf-8").read())
rows = [(k, len(v), len(v) / 60, statistics.median(v), statistics.pstdev(v) if len(v) > 1 else 0) for k, v in calls.items()]
got = list(csv.reader(open(folder + "/protospacer_calls_summary.csv", encoding="utf-8")))[5:]
want = list(csv.reader(io.StringIO(text(rows))))
print([r[:4] for r in got] == [r[:4] for r in want])
print(max(abs(float(a[4]) - float(b[4])) for a, b in zip(got, want)) < 1e-9)
limits = json.load(open(folder + "/protospacer_umi_thresholds.json", encoding="utf-8"))
print({r["Protospacer"]: int(r["UMI threshold"]) for r in csv.DictReader(open(folder + "/protospacer_umi_thresholds.csv", encoding="utf-8"))} == limits)
', folder, file.path(dirname(folder), "pairs.tsv"))
  expect_identical(out, rep("True", 4L))
})

test_that("pandas reads the tables", {
  python <- python_with("pandas")
  path <- file.path(new_folder(), "calls.csv")
  calls <- awkward_calls()
  write_calls(calls, path, guides = guide_table_of())
  out <- run_python(python, '
import pandas, sys
t = pandas.read_csv(sys.argv[1])
print(list(t.columns))
print(t.umi_count.sum(), len(t), t.cell_barcode.nunique())
for g in t.guide_id.unique(): print(g)
', path)
  expect_identical(out[1L], "['cell_barcode', 'guide_id', 'umi_count', 'assignment_confidence', 'target']")
  expect_identical(out[2L], paste(sum(calls$pairs$umi_count), nrow(calls$pairs), sum(!calls$cells$is_unassigned)))
  expect_identical(out[-(1:2)], unique(calls$pairs$guide_id))
})

test_that("crispat loads its file", {
  python <- python_with("crispat")
  folder <- new_folder()
  dir.create(file.path(folder, "kaichi"))
  calls <- awkward_calls()
  write_calls(calls, file.path(folder, "kaichi", "assignments.csv"), format = "crispat")
  out <- run_python(python, '
import sys, crispat
t = crispat.load_assignments({"kaichi": ["kaichi", None]}, sys.argv[1] + "/")
for row in zip(t.cell, t.gRNA): print("\\t".join(row))
', folder)
  expect_identical(out, paste(calls$pairs$cell_barcode, calls$pairs$guide_id, sep = "\t"))
})

test_that("nothing is replaced unasked, and no half of a file is left", {
  folder <- new_folder()
  calls <- awkward_calls()
  path <- file.path(folder, "calls.csv")
  writeLines("mine", path)
  expect_error(write_calls(calls, path), "overwrite = TRUE", class = "kaichi_error_file")
  expect_identical(readLines(path), "mine")
  write_calls(calls, path, overwrite = TRUE)
  expect_identical(nrow(read_plain(path)), nrow(calls$pairs))

  inside <- file.path(folder, "crispr_analysis")
  dir.create(inside)
  writeLines("mine", file.path(inside, "cells_per_protospacer.json"))
  expect_error(write_calls(calls, inside), "cells_per_protospacer.json", class = "kaichi_error_file")
  expect_identical(list.files(inside), "cells_per_protospacer.json")
  # A write that fails leaves what was there.
  expect_error(
    write_whole(path, function(file) {
      writeLines("half", file)
      stop("disk full")
    }),
    "disk full", class = "kaichi_error_file"
  )
  expect_identical(nrow(read_plain(path)), nrow(calls$pairs))
  expect_setequal(list.files(folder, all.files = TRUE, no.. = TRUE), c("calls.csv", "crispr_analysis"))
})

test_that("formats are told by the path", {
  expect_identical(write_format("a/calls.CSV", NULL), "csv")
  expect_identical(write_format("a/calls.csv.gz", NULL), "csv")
  expect_identical(write_format("a.b/crispr_analysis", NULL), "cellranger")
  expect_identical(write_format(tempdir(), NULL), "cellranger")
  expect_identical(write_format("calls.h5ad", NULL), "h5ad")
  expect_identical(write_format("calls.h5mu", NULL), "h5mu")
  expect_identical(write_format("calls.txt", "csv"), "csv")
})

test_that("what cannot be written is an error", {
  calls <- awkward_calls()
  piped <- awkward_calls(sub("a,b", "a|b", awkward_guides, fixed = TRUE))
  old <- setwd(new_folder())
  on.exit(setwd(old), add = TRUE)
  writeLines("mine", "file")
  dir.create("folder")
  expect_snapshot({
    error_text("file", write_calls(calls, "nowhere/calls.csv"))
    error_text("file", write_calls(calls, "folder", format = "csv"))
    error_text("file", write_calls(calls, "file"))
    error_text("argument", write_calls(calls, "calls.txt"))
    error_text("argument", write_calls(calls, "calls.txt", format = "tsv"))
    error_text("argument", write_calls(calls, c("a.csv", "b.csv")))
    error_text("argument", write_calls(calls, "a.csv", overwrite = NA))
    error_text("argument", write_calls(calls, "a.csv", append = TRUE))
    error_text("argument", write_calls(calls, "new", guides = guide_table_of()))
    error_text("argument", write_calls(data.frame(), "a.csv"))
    error_text("names", write_calls(piped, "new"))
  })
  expect_setequal(list.files(), c("file", "folder"))
})
