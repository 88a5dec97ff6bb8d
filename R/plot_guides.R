# Pictures of all guides: their cells, and which of them meet in a cell.

#' Draw the cells per guide, ranked
#'
#' How evenly the library is covered: the cells in which each guide is called, from the most to the fewest, with the controls
#' marked.
#'
#' @inheritParams plot_guides_per_cell
#' @param guides NULL, or the guide table, see [cell_columns()]: its `type` or `target` tells the controls. NULL is that of
#'   `calls`; without any, no guide is marked.
#' @param control NULL, or the targets of the controls, see [cell_columns()].
#' @return A ggplot with a point for each guide, named up to 40 guides; of more than 1,000 with controls, these are ranked
#'   apart. The cells are on the scale of log(1 + x).
#' @section Errors:
#'   Those of [plot_guides_per_cell()], and those of [cell_columns()] for the table and `control`.
#' @examples
#' calls <- assign_guides(system.file("extdata", "guides.h5ad", package = "kaichi"))
#' guide_id <- rownames(calls$counts)
#' guides <- data.frame(guide_id, type = ifelse(grepl("NT", guide_id), "non-targeting", "targeting"))
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_cells_per_guide(calls, guides)
#' @export
plot_cells_per_guide <- function(calls, guides = NULL, control = NULL) {
  calls <- pictured_calls(calls)
  table <- guide_rows(calls, guides)
  target <- if (!is.null(table)) table_column(table, "target")
  type <- if (!is.null(table)) table_column(table, "type")
  if (is.null(target) && is.null(type)) {
    if (!is.null(control)) abort(
      "argument", "`control` names targets, and there is no guide table with a column \"target\". Give `guides`."
    )
    is_control <- rep(FALSE, nrow(calls$counts))
  } else {
    if (is.null(target)) target <- rep(NA_character_, nrow(table))
    is_control <- control_guides(target, type, control)
  }
  n <- guide_calls_of(calls)
  order <- order(-n)
  kinds <- c(if (any(is_control)) "targeting" else "guides", "controls")
  names <- sprintf("%s (%s)", kinds, big(c(sum(!is_control), sum(is_control))))
  points <- data.frame(
    rank = seq_along(n), guide = rownames(calls$counts)[order], cells = n[order],
    what = factor(ifelse(is_control[order], names[2L], names[1L]), names)
  )
  few <- length(n) <= 40L
  # Of thousands, the controls would hide the others or be hidden: two curves then, each over all of its guides.
  apart <- length(n) > 1000L && any(is_control) && !all(is_control)
  if (apart) points$rank <- stats::ave(points$rank, points$what, FUN = function(rank) (rank(rank) - 0.5) / length(rank))
  points <- points[order(points$what), ]
  ggplot2::ggplot(points, ggplot2::aes(.data$rank, .data$cells, colour = .data$what, shape = .data$what)) +
    ggplot2::geom_hline(yintercept = stats::median(n), linetype = "dashed", colour = "grey50") +
    ggplot2::geom_point(size = if (few) 2.4 else if (length(n) > 1000L) 0.9 else 1.5) +
    ggplot2::scale_colour_manual(values = stats::setNames(picture_colours[c("signal", "control")], names)) +
    ggplot2::scale_shape_manual(values = stats::setNames(c(16, 17), names)) +
    (if (few) {
      by_rank <- points[order(points$rank), ]
      ggplot2::scale_x_continuous(NULL, breaks = by_rank$rank, labels = short_name(by_rank$guide, 20L))
    } else if (apart) {
      ggplot2::scale_x_continuous(
        "rank of the guide, as a share of the targeting or of the control guides", labels = percent_labels
      )
    } else {
      ggplot2::scale_x_continuous("rank of the guide", labels = big_labels)
    }) +
    scale_log1p("y", "cells with the guide called", limits = c(0, max(n, 1L))) +
    ggplot2::guides(colour = ggplot2::guide_legend(override.aes = list(size = 2.4))) +
    ggplot2::labs(
      title = "Cells per guide",
      subtitle = paste0(
        "model ", model_words(calls), "\nmedian ", big(stats::median(n)), " (dashed)",
        if (any(n == 0L)) paste0(", ", count_of(sum(n == 0L), "guide"), " without a cell")
      )
    ) +
    picture_theme() +
    (
      if (few) ggplot2::theme(
        axis.text.x = ggplot2::element_text(angle = 60, hjust = 1), panel.grid.major.x = ggplot2::element_blank()
      )
    )
}

#' Draw which guides meet in a cell
#'
#' Pairs of guides by the cells that both are called in, against those expected by chance, (cells of one) x (cells of the
#' other) / cells. Guides of one construct lie far above the diagonal. If all pairs do, there are doublets, or some cells take
#' up more than others; if all lie below, cells were selected for having one guide.
#'
#' @inheritParams plot_guides_per_cell
#' @param label The number of pairs to name, those met most often beyond chance first, as far as there is room. A whole number, 0 to
#'   50.
#' @return A ggplot with a point for each pair of guides that meet or, of more than 200, tiles coloured by the number of pairs
#'   in them; both axes are logarithmic. Pairs that never meet have no place there and are
#'   counted in the subtitle.
#' @section Errors:
#'   Those of [plot_guides_per_cell()]; `kaichi_error_argument` for `label`.
#' @seealso [call_constructs()]
#' @examples
#' calls <- assign_guides(simulate_guides("dual_guide", n_cells = 1000, n_guides = 40)$counts)
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_guide_pairs(calls)
#' @export
plot_guide_pairs <- function(calls, label = 5) {
  calls <- pictured_calls(calls)
  label <- check_number(label, "label", 0, 50, whole = TRUE)
  met <- guides_met(calls)
  tiles <- met_tiles(met)
  guides <- rownames(calls$counts)
  named <- utils::head(met[order(-(met$observed * log(met$observed / met$expected) - met$observed + met$expected)), ], label)
  # Two cells are no pattern.
  if (nrow(met) > 10L) named <- named[named$observed > pmax(named$expected, 2), ]
  named$name <- sprintf("%s + %s", short_name(guides[named$a], 18L), short_name(guides[named$b], 18L))
  never <- choose(as.numeric(length(guides)), 2) - nrow(met)
  few <- nrow(met) <= 200L
  ggplot2::ggplot(tiles, ggplot2::aes(.data$expected, .data$observed)) +
    ggplot2::geom_abline(linetype = "dashed", colour = picture_colours[["chance"]]) +
    (if (few) {
      ggplot2::geom_point(colour = picture_colours[["signal"]], data = met, size = 2)
    } else {
      ggplot2::geom_tile(ggplot2::aes(fill = .data$pairs, width = .data$width, height = .data$height))
    }) +
    ggplot2::geom_text(
      ggplot2::aes(label = .data$name, hjust = .data$hjust, vjust = .data$vjust),
      label_places(named, if (few) met else tiles), size = 2.9, check_overlap = TRUE
    ) +
    (if (!few) {
      do.call(ggplot2::scale_fill_viridis_c, c(
        list(name = "pairs of guides", labels = big_labels, end = 0.95, limits = c(1, max(10, tiles$pairs)), breaks = 10^(0:9)),
        transformed("log10")
      ))
    }) +
    scale_log10("x", "cells with both guides, expected by chance") +
    scale_log10("y", "cells with both called", expand = ggplot2::expansion(c(0.05, 0.12))) +
    ggplot2::expand_limits(y = c(1, 10)) +
    ggplot2::labs(
      title = "Guides that meet in a cell", subtitle = paste("model", model_words(calls)),
      caption = paste0("dashed: as many as by chance; ", count_of(never, "pair"), " of guides never met")
    ) +
    picture_theme() +
    bar_legend()
}

# The labels that have room beside their point, with hjust and vjust: above it, below it or at its side, where neither a point (or
# tile) nor an earlier label lies. Lengths are shares of a panel of some six inches; text may be wider in other fonts, so there is slack.
label_places <- function(named, drawn) {
  if (nrow(named) == 0L) return(cbind(named, hjust = double(), vjust = double()))
  share <- function(values, ends, below, above) {
    wide <- diff(ends)
    if (wide == 0) rep(0.5, length(values)) else (values - ends[1L] + below * wide) / ((1 + below + above) * wide)
  }
  edges <- function(values, size) cbind(log10(values) - size / 2, log10(values) + size / 2)
  x <- edges(drawn$expected, if (is.null(drawn$width)) 0 else drawn$width)
  y <- edges(drawn$observed, if (is.null(drawn$height)) 0 else drawn$height)
  across <- function(values) share(values, range(x), 0.05, 0.05)
  up <- function(values) share(values, range(y, 0, 1), 0.05, 0.12)
  # Points are no smaller than this.
  taken <- cbind(across(x[, 1L]) - 0.01, across(x[, 2L]) + 0.01, up(y[, 1L]) - 0.016, up(y[, 2L]) + 0.016)
  ways <- rbind(c(0.5, -1), c(0, -1), c(1, -1), c(-0.12, 0.5), c(1.12, 0.5), c(0.5, 2), c(0, 2), c(1, 2))
  size <- cbind(0.012 * nchar(named$name), 0.036)
  found <- matrix(NA_real_, nrow(named), 2L)
  for (k in seq_len(nrow(named))) {
    left <- across(log10(named$expected[k])) - ways[, 1L] * size[k, 1L]
    low <- up(log10(named$observed[k])) - ways[, 2L] * size[k, 2L]
    boxes <- cbind(left, left + size[k, 1L], low, low + size[k, 2L])
    free <- apply(boxes, 1L, function(box) {
      box[1L] >= 0 && box[2L] <= 1 && box[3L] >= 0 && box[4L] <= 1 &&
        !any(taken[, 1L] < box[2L] & taken[, 2L] > box[1L] & taken[, 3L] < box[4L] & taken[, 4L] > box[3L])
    })
    if (!any(free)) next
    way <- which(free)[1L]
    found[k, ] <- ways[way, ]
    taken <- rbind(taken, boxes[way, ])
  }
  named$hjust <- found[, 1L]
  named$vjust <- found[, 2L]
  named[!is.na(named$hjust), ]
}

# Each pair of guides called in some cell together: positions, cells with both, and those expected by chance.
guides_met <- function(calls) {
  both <- Matrix::tcrossprod(calls$assigned)
  n <- guide_calls_of(calls)
  both <- methods::as(Matrix::triu(both, 1L), "generalMatrix")
  both <- Matrix::drop0(both)
  a <- both@i + 1L
  b <- rep(seq_len(ncol(both)), diff(both@p))
  data.frame(a = a, b = b, observed = both@x, expected = as.numeric(n[a]) * n[b] / ncol(calls$counts))
}

# Counted in tiles: whole numbers of observed cells up to 5, the rest by tenths of a power of ten. `width` and `height` are on
# the log scale, where ggplot2 draws.
met_tiles <- function(met) {
  step <- 0.1
  x <- floor(log10(met$expected) / step)
  y <- floor(log10(met$observed) / step + 1e-9)
  key <- paste(x, y)
  first <- !duplicated(key)
  data.frame(
    expected = 10^((x[first] + 0.5) * step), observed = 10^((y[first] + 0.5) * step),
    pairs = tabulate(match(key, key[first]), sum(first)), width = rep(step, sum(first)), height = rep(step, sum(first))
  )
}
