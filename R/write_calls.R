#' Write guide calls to a file
#'
#' In the files of Cell Ranger, of crispat, of anndata and MuData, or as a plain table.
#'
#' The file is written under another name in the same folder and renamed when it is complete: a crash or a full disk leaves no
#' half of a file. Text is UTF-8; names with a comma, a quote or a line break are quoted, and nothing else.
#'
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()]; or a SingleCellExperiment, SummarizedExperiment or
#'   Seurat object with calls attached, see [attached_calls()].
#' @param path The file, or the folder for Cell Ranger's format. The folder it is in must be there.
#' @param ... Must be empty.
#' @param format One of the formats below. NULL: told by `path`, `.h5ad`, `.h5mu`, `.csv` or `.csv.gz` (`"csv"`), a name without
#'   extension or a folder that is there (`"cellranger"`).
#' @param overwrite Whether files that are there are replaced. Without it they are an error.
#' @param guides For `"csv"`, `"h5ad"` and `"h5mu"`: the guide table, see [read_guide_table()]; its targets go into the table of
#'   pairs, or all of it into `var` and the targets into `obs`. NULL is that of `calls`.
#' @param rna For `"h5mu"`: NULL, or the path of an `.h5ad` or `.h5mu` whose modalities go into the file, too.
#'
#' @return `path`, invisibly.
#' @section Formats:
#'   \describe{
#'     \item{cellranger}{A folder as Cell Ranger's `crispr_analysis`, with its names, order and numbers (version 10: shares are
#'       fractions, the deviation is that of the population): `protospacer_calls_per_cell.csv`, cells with a call, guides and
#'       UMIs joined by `|`; `protospacer_calls_summary.csv`; `cells_per_protospacer.json`, with every guide; and
#'       `protospacer_umi_thresholds.csv` and `.json`, with the guides whose calls are just the cells from some count on. Models
#'       that look at the depth of a cell have no such count for most guides; those are left out, and without any so are the
#'       files. Other files of a folder that is there stay.}
#'     \item{csv}{One row per called pair: `cell_barcode`, `guide_id`, `umi_count`, `assignment_confidence`, and `target` where
#'       it is known. Confidences are written so that they read back as the same number.}
#'     \item{crispat}{crispat's assignments.csv: `cell`, `gRNA`, `UMI_counts`.}
#'     \item{h5ad}{For anndata and kaichi for Python: counts, calls and tables as in the section Output to a file of
#'       [assign_guides()], without scores.}
#'     \item{h5mu}{For MuData: the same as the modality `guide`. With `rna`, an `.h5ad` becomes the modality `rna`, the modalities of
#'       an `.h5mu` keep their names, and one named `guide` is replaced; they are copied as they are. Cells are matched by name;
#'       those of only one modality are kept.}
#'   }
#' @section Errors:
#'   `kaichi_error_file` for a folder that is missing and a file that is there or cannot be written; `kaichi_error_argument` for
#'   a format that is unknown or cannot be told; `kaichi_error_names` for a guide with a `|` in Cell Ranger's format.
#' @seealso [cell_columns()] for the columns of other tools.
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"), model = "umi")
#' folder <- tempfile()
#' write_calls(calls, folder)
#' list.files(folder)
#' head(read.csv(file.path(folder, "protospacer_calls_per_cell.csv")))
#'
#' file <- tempfile(fileext = ".csv")
#' write_calls(calls, file)
#' head(read.csv(file))
#' unlink(c(folder, file), recursive = TRUE)
#' @export
write_calls <- function(calls, path, ..., format = NULL, overwrite = FALSE, guides = NULL, rna = NULL) {
  check_no_dots("write_calls", ...)
  if (!inherits(calls, "guide_calls")) calls <- attached_calls(calls)
  check_string(path, "path", "the path of a file, or of a folder for Cell Ranger's format")
  if (!is.logical(overwrite) || length(overwrite) != 1L || is.na(overwrite)) {
    abort("argument", "`overwrite` must be TRUE or FALSE, not ", describe(overwrite), ".")
  }
  path <- path.expand(path)
  format <- write_format(path, format)
  if (!is.null(guides) && !format %in% c("csv", "h5ad", "h5mu")) {
    abort("argument", "`guides` means nothing for the format \"", format, "\", which has no targets: leave it out.")
  }
  if (!is.null(rna) && format != "h5mu") {
    abort("argument", "`rna` means nothing for the format \"", format, "\": leave it out, or write an .h5mu.")
  }
  calls <- carry_guides(calls, guide_rows(calls, guides))
  if (!dir.exists(dirname(path))) {
    abort("file", "The folder ", quote_names(dirname(path)), " of `path` does not exist. Make it first, with dir.create().")
  }
  if (format != "cellranger") {
    if (dir.exists(path)) abort("file", "`path` is ", quote_names(path), ", which is a folder. Give the path of a file.")
    refuse_existing(path, overwrite)
  }
  switch(
    format,
    cellranger = write_cellranger(calls, path, overwrite),
    csv = write_table(pair_columns(calls), path),
    crispat = write_table(
      list(cell = calls$pairs$cell_barcode, gRNA = calls$pairs$guide_id, UMI_counts = calls$pairs$umi_count), path
    ),
    h5ad = ,
    h5mu = write_h5ad_calls(calls, path, overwrite, rna = rna, as_h5mu = format == "h5mu")
  )
  invisible(path)
}

write_format <- function(path, format) {
  formats <- c("cellranger", "csv", "crispat", "h5ad", "h5mu")
  if (!is.null(format)) return(check_choice(format, "format", formats))
  if (dir.exists(path)) return("cellranger")
  name <- tolower(basename(path))
  if (grepl("[.]csv([.]gz)?$", name)) return("csv")
  if (grepl("[.]h5(ad|mu)$", name)) return(sub("^.*[.]", "", name))
  if (!grepl(".", name, fixed = TRUE)) return("cellranger")
  abort(
    "argument", "The format of ", quote_names(basename(path)), " is not told by its name. Give `format`, one of ",
    quote_names(formats), "."
  )
}

refuse_existing <- function(paths, overwrite) {
  there <- paths[file.exists(paths)]
  if (overwrite || length(there) == 0L) return(invisible())
  abort("file", quote_names(there), if (length(there) == 1L) " exists" else " exist", ". Give overwrite = TRUE to replace it.")
}

# Calls `write` with a name beside `path`, and gives that name's file the name `path` once it is whole.
write_whole <- function(path, write) {
  unfinished <- tempfile(paste0(".", basename(path), "-"), dirname(path))
  on.exit(unlink(unfinished, recursive = TRUE))
  or_cannot_write(path, {
    write(unfinished)
    move_file(unfinished, path)
  })
}

move_file <- function(from, to) if (!file.rename(from, to)) stop("it cannot be renamed")

or_cannot_write <- function(path, code) {
  tryCatch(
    code,
    warning = function(w) cannot_write(path, w),
    error = function(e) if (inherits(e, "kaichi_error")) stop(e) else cannot_write(path, e)
  )
}

cannot_write <- function(path, condition) {
  abort("file", quote_names(path), " cannot be written: ", conditionMessage(condition), ".")
}

write_lines <- function(lines, path, gzip = FALSE) {
  lines <- enc2utf8(lines)
  connection <- if (gzip) gzfile(path, "wb") else file(path, "wb")
  tryCatch(writeLines(lines, connection, sep = "\n", useBytes = TRUE), finally = close(connection))
  # R's connections say nothing of a full disk.
  if (bytes_in(path, gzip) != sum(nchar(lines, "bytes") + 1)) stop("it is cut short, the disk may be full")
}

bytes_in <- function(path, gzip) {
  if (!gzip) return(file.size(path))
  connection <- gzfile(path, "rb")
  on.exit(close(connection))
  n <- 0
  while (length(part <- readBin(connection, "raw", 2^20)) > 0L) n <- n + length(part)
  n
}

# Columns of one length -> a CSV file.
write_table <- function(columns, path) {
  fields <- lapply(columns, csv_field)
  lines <- c(paste(csv_field(names(columns)), collapse = ","), do.call(paste, c(unname(fields), sep = ",")))
  write_whole(path, function(file) write_lines(lines, file, gzip = grepl("[.]gz$", path)))
}

csv_field <- function(x) {
  if (is.double(x)) return(shortest(x))
  text <- as.character(x)
  text[is.na(text)] <- ""
  quote <- grepl("[\",\r\n]", text)
  text[quote] <- paste0("\"", gsub("\"", "\"\"", text[quote], fixed = TRUE), "\"")
  text
}

# The fewest digits that read back as the same number.
shortest <- function(x) {
  text <- character(length(x))
  missing <- is.na(x)
  known <- x[!missing]
  short <- sprintf("%.15g", known)
  for (format in c("%.16g", "%.17g")) {
    longer <- which(as.numeric(short) != known)
    short[longer] <- sprintf(format, known[longer])
  }
  text[!missing] <- short
  text
}

pair_columns <- function(calls) {
  columns <- as.list(calls$pairs[c("cell_barcode", "guide_id", "umi_count", "assignment_confidence")])
  target <- if (!is.null(calls$guides)) table_column(calls$guides, "target")
  if (!is.null(target)) columns$target <- target[match(columns$guide_id, rownames(calls$counts))]
  columns
}

# ---- Cell Ranger ----

cellranger_files <- c(
  "protospacer_calls_per_cell.csv", "protospacer_calls_summary.csv", "cells_per_protospacer.json",
  "protospacer_umi_thresholds.csv", "protospacer_umi_thresholds.json"
)

write_cellranger <- function(calls, path, overwrite) {
  if (file.exists(path) && !dir.exists(path)) {
    abort("file", "`path` is ", quote_names(path), ", which is a file. Give a folder for Cell Ranger's format.")
  }
  files <- cellranger_lines(calls)
  write_folder <- function(folder) {
    dir.create(folder)
    for (name in names(files)) write_lines(files[[name]], file.path(folder, name))
  }
  if (!dir.exists(path)) return(write_whole(path, write_folder))
  refuse_existing(file.path(path, cellranger_files), overwrite)
  # All are whole before the first takes its place.
  unfinished <- tempfile(".kaichi-", path)
  on.exit(unlink(unfinished, recursive = TRUE))
  or_cannot_write(path, {
    write_folder(unfinished)
    # Thresholds of other calls must not stay beside these.
    unlink(file.path(path, setdiff(cellranger_files, names(files))))
    for (name in names(files)) move_file(file.path(unfinished, name), file.path(path, name))
  })
}

# The lines of each file. Everything follows Cell Ranger's order: guide after guide, and cells as they first occur in that.
cellranger_lines <- function(calls) {
  called <- called_pairs(calls)
  guides <- rownames(calls$counts)
  cells <- colnames(calls$counts)
  check_separator(guides[called$guide], "|", "guides")

  of_cell <- unique(called$cell[order(called$guide, called$cell)])
  feature_call <- join_by_cell(guides[called$guide], called$cell, called$n, "|", "")[of_cell]
  num_umis <- join_by_cell(as.character(called$umi), called$cell, called$n, "|", "")[of_cell]
  num_features <- tabulate(called$cell, called$n)[of_cell]

  thresholds <- umi_thresholds(calls, called)
  c(
    list(
      protospacer_calls_per_cell.csv = c(
        "cell_barcode,num_features,feature_call,num_umis",
        sprintf("%s,%d,%s,%s", csv_field(cells[of_cell]), num_features, csv_field(feature_call), num_umis)
      ),
      protospacer_calls_summary.csv = calls_summary(calls, called, of_cell, feature_call, num_features),
      cells_per_protospacer.json = json_lists(split(
        cells[called$cell], factor(called$guide, seq_along(guides))
      ), guides)
    ),
    if (length(thresholds) > 0L) {
      list(
        protospacer_umi_thresholds.csv = c(
          "Protospacer,UMI threshold", sprintf("%s,%d", csv_field(names(thresholds)), thresholds)
        ),
        protospacer_umi_thresholds.json = c(
          "{", paste0("    ", json_string(names(thresholds)), ": ", thresholds, commas(length(thresholds))), "}"
        )
      )
    }
  )
}

calls_summary <- function(calls, called, of_cell, feature_call, num_features) {
  n <- called$n
  row <- function(name, num, median, deviation) {
    paste(csv_field(name), num, python_float(num / n), median, deviation, sep = ",")
  }
  umis <- rep(0, n)
  # Sums by cell; the pairs of a cell are neighbours.
  sums <- rowsum(as.double(called$umi), called$cell, reorder = TRUE)
  umis[as.integer(rownames(sums))] <- sums
  kinds <- unique(feature_call)
  umis <- split(umis[of_cell], factor(match(feature_call, kinds), seq_along(kinds)))
  c(
    "feature_call,num_cells,pct_cells,median_umis,stddev_umis",
    row("No guide molecules", sum(diff(calls$counts@p) == 0L), "None", "None"),
    row("No confident call", n - length(of_cell), "None", "None"),
    row("1 protospacer assigned", sum(num_features == 1L), "None", "None"),
    row("More than 1 protospacer assigned", sum(num_features > 1L), "None", "None"),
    if (length(kinds) > 0L) {
      row(kinds, lengths(umis), python_medians(umis), python_deviations(umis))
    }
  )
}

# Python's statistics.median() gives one of the values or, of an even number of them, a float; pstdev() a float, and Cell
# Ranger a 0 for a single value.
python_medians <- function(lists) {
  # At high MOI nearly every combination of guides is that of one cell.
  middle <- vapply(lists, `[`, 0, 1L)
  several <- lengths(lists) > 1L
  middle[several] <- vapply(lists[several], stats::median, 0)
  text <- sprintf("%.0f", middle)
  even <- lengths(lists) %% 2L == 0L
  text[even] <- python_float(middle[even])
  text
}

python_deviations <- function(lists) {
  text <- rep("0", length(lists))
  several <- lengths(lists) > 1L
  text[several] <- python_float(vapply(lists[several], function(x) sqrt(mean((x - mean(x))^2)), 0))
  text
}

python_float <- function(x) {
  text <- shortest(x)
  whole <- grepl("^-?[0-9]+$", text)
  text[whole] <- paste0(text[whole], ".0")
  text
}

# The count from which on all cells have the guide called and none below it, of the guides that have one.
umi_thresholds <- function(calls, called) {
  counts <- calls$counts
  guide <- counts@i + 1L
  left <- !matrix_places(counts) %in% matrix_places(calls$assigned)
  least <- tapply(called$umi, called$guide, min)
  with_calls <- as.integer(names(least))
  most_left <- numeric(nrow(counts))
  over <- tapply(counts@x[left], guide[left], max)
  most_left[as.integer(names(over))] <- over
  keep <- most_left[with_calls] < least
  stats::setNames(as.integer(least[keep]), rownames(counts)[with_calls[keep]])
}

# {"guide": ["cell", ...], ...}, two spaces deep, as Python's json writes it.
json_lists <- function(lists, names) {
  body <- vapply(lists, function(values) {
    if (length(values) == 0L) return("[]")
    paste0("[\n", paste0("    ", json_string(values), collapse = ",\n"), "\n  ]")
  }, "")
  c("{", paste0("  ", json_string(names), ": ", body, commas(length(names))), "}")
}

commas <- function(n) rep(c(",", ""), c(n - 1L, 1L))

json_string <- function(x) {
  x <- gsub("\"", "\\\"", gsub("\\", "\\\\", enc2utf8(x), fixed = TRUE), fixed = TRUE)
  control <- grep("[[:cntrl:]]", x)
  for (code in 1:31) x[control] <- gsub(intToUtf8(code), sprintf("\\u%04x", code), x[control], fixed = TRUE)
  paste0("\"", x, "\"")
}
