path <- system.file("extdata", "guides.h5ad", package = "kaichi")
counts <- read_guides(path)
ids <- rownames(counts)
table <- data.frame(
  guide_id = rev(ids), target = rev(ifelse(seq_along(ids) %% 2 == 0, paste0("T", seq_along(ids)), "")),
  sequence = "ACGT", weight = rev(seq_along(ids))
)
message_of <- function(code) conditionMessage(tryCatch(code, kaichi_error = identity))

test_that("a file and a data.frame give the same table", {
  for (end in c(".csv", ".tsv", ".csv.gz")) {
    file <- tempfile(fileext = end)
    connection <- if (grepl("gz", end)) gzfile(file, "w") else file(file, "w")
    utils::write.table(table, connection, sep = if (end == ".tsv") "\t" else ",", row.names = FALSE, na = "")
    close(connection)
    read <- read_guide_table(file)
    expect_identical(read[c("guide_id", "sequence")], table[c("guide_id", "sequence")])
    expect_identical(read$target, ifelse(table$target == "", NA, table$target))
    expect_identical(as.integer(read$weight), table$weight)
  }
  expect_identical(read_guide_table(table)$target, read$target)
})

test_that("tables that cannot be used are refused", {
  file <- tempfile(fileext = ".csv")
  writeLines(c("number,target", "a,b"), file)
  expect_error(read_guide_table(file), "no column \"guide_id\"", class = "kaichi_error_format")
  expect_error(read_guide_table("absent.csv"), "does not exist", class = "kaichi_error_file")
  expect_error(read_guide_table(list(1)), "must be a data.frame", class = "kaichi_error_argument")
  expect_error(read_guide_table(data.frame(guide_id = c("a", "a"))), "more than one row", class = "kaichi_error_names")
  assign <- function(guides) assign_guides(counts, "umi", guides = guides)
  expect_error(assign(table[-(1:2), ]), "2 guides of the counts not in `guides\\$guide_id`: \"sgNT_3\", \"sgNT_4\"", class = "kaichi_error_names")
  expect_error(assign(data.frame(guide_id = "x")), "No guide of the counts", class = "kaichi_error_names")
})

test_that("the table goes to the calls and from there to where guides are asked for", {
  expect_silent(calls <- assign_guides(counts, "umi", guides = table))
  expect_identical(calls$guides$guide_id, ids)
  expect_identical(calls$guides$weight, seq_along(ids))
  target <- stats::setNames(calls$guides$target, ids)
  expect_identical(calls$cells$target, unname(target[calls$cells$guide_id]))
  expect_gt(sum(!is.na(calls$cells$target)), 10L)
  scored <- decide_guides(score_guides(counts, "gauss", guides = table))
  expect_identical(scored$guides, calls$guides)
  none <- assign_guides(counts, "umi")
  expect_null(none$guides)
  expect_null(none$cells$target)
  # The same calls but for the table.
  expect_identical(none$pairs, calls$pairs)

  full <- transform(table, target = ifelse(target == "", "non-targeting", target), construct = rep(c("A", "B"), length.out = nrow(table)))
  calls <- assign_guides(counts, "umi", guides = full)
  expect_identical(call_constructs(calls)$cells, call_constructs(none, calls$guides)$cells)
  given <- suppressMessages(cell_columns(none, "mixscape", guides = full))
  expect_identical(suppressMessages(cell_columns(calls, "mixscape")), given)
  file <- tempfile(fileext = ".csv")
  write_calls(calls, file)
  pairs <- utils::read.csv(file)
  expect_identical(pairs$target, full$target[match(pairs$guide_id, full$guide_id)])
})

test_that("guides under other names and guides that were not counted are said", {
  other <- rbind(transform(table, guide_id = gsub("-", "_", guide_id)), data.frame(guide_id = "extra", target = "X", sequence = "", weight = 0))
  renamed <- counts
  rownames(renamed) <- gsub("_", "-", ids)
  other$guide_id <- c(rev(ids), "extra")
  messages <- capture_messages(calls <- assign_guides(renamed, "umi", guides = other))
  expect_match(messages, "1 guide of `guides` not in the counts, left out: \"extra\"", fixed = TRUE, all = FALSE)
  if (any(grepl("_", ids))) expect_match(messages, "where _ and | have become -", fixed = TRUE, all = FALSE)
  expect_identical(calls$guides$guide_id, rownames(renamed))
  expect_identical(calls$guides$weight, as.numeric(seq_along(ids)))
})

test_that("what a file says of its guides is the table where none is given", {
  file <- test_path("fixtures", "tenx.h5")
  calls <- suppressMessages(assign_guides(file, "umi", control = model_control(umi_threshold = 1)))
  expect_identical(calls$guides$target, c("T1", "T2", "T3", "T4", "Non-Targeting"))
  expect_identical(calls$cells$target, calls$guides$target[match(calls$cells$guide_id, calls$guides$guide_id)])
  given <- data.frame(guide_id = paste0("guide_", 1:5), target = letters[1:5])
  calls <- suppressMessages(assign_guides(file, "umi", guides = given))
  expect_identical(calls$guides, given)
})

test_that("the table is in rowData of the experiment, and comes back with the calls", {
  skip_if_not_installed("SingleCellExperiment")
  sce <- SingleCellExperiment::SingleCellExperiment(list(counts = counts), mainExpName = "guides")
  sce <- assign_guides(sce, "umi", guides = table)
  data <- SummarizedExperiment::rowData(sce)
  expect_identical(data$weight, seq_along(ids))
  back <- attached_calls(sce)
  expect_identical(back$guides$target, data$target)
  expect_identical(back$cells$target, sce$target)
})

test_that("the table is in var and the targets in obs of an .h5ad", {
  calls <- assign_guides(counts, "umi", guides = table)
  file <- tempfile(fileext = ".h5ad")
  write_calls(calls, file)
  again <- read_guide_file(file)
  expect_identical(again$guides, calls$guides[c("guide_id", "target", "sequence")])
  expect_error(read_guide_file(file, batch = "target"), "obs/target is NA", class = "kaichi_error_batch")
  # Through memory, as there is a table.
  output <- tempfile(fileext = ".h5ad")
  assign_guides(path, "umi", guides = table, output = output)
  expect_identical(read_guide_file(output)$guides, again$guides)
  # Given when written.
  write_calls(assign_guides(counts, "umi"), file, guides = table, overwrite = TRUE)
  expect_identical(read_guide_file(file)$guides, again$guides)
})
