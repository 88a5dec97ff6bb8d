# What all pictures share: the calls they take, colours that colour-blind people tell apart, bins of UMIs, scales.
#
# Cells are counted in bins before ggplot2 sees them: a million cells are a few hundred rows.

# aes() finds it in the data.
utils::globalVariables(".data")

# Okabe and Ito's colours.
picture_colours <- c(
  all = "grey80", called = "#56B4E9", background = "#D55E00", signal = "#0072B2", middle = "#009E73", control = "#E69F00",
  chance = "#D55E00"
)

# A guide_calls, or an object with calls -> guide_calls.
pictured_calls <- function(calls) {
  need_package("ggplot2", "to draw pictures")
  if (inherits(calls, "guide_calls")) calls else attached_calls(calls)
}

picture_theme <- function() {
  ggplot2::theme_minimal(base_size = 11) +
    ggplot2::theme(
      panel.grid.minor = ggplot2::element_blank(), legend.position = "top", legend.justification = "left",
      legend.title = ggplot2::element_blank(), plot.title.position = "plot",
      plot.subtitle = ggplot2::element_text(colour = "grey30"),
      plot.background = ggplot2::element_rect(fill = "white", colour = NA),
      # The last label of an axis is as wide as half of it beyond the end.
      plot.margin = ggplot2::margin(6, 14, 6, 6)
    )
}

# A legend that is a bar of colours, with its title.
bar_legend <- function() {
  ggplot2::theme(
    legend.title = ggplot2::element_text(vjust = 1, margin = ggplot2::margin(r = 10)),
    legend.key.width = ggplot2::unit(1.8, "lines"),
    legend.key.height = ggplot2::unit(0.6, "lines")
  )
}

# "poisson_gauss (min_confidence 0.8)"
model_words <- function(calls) paste0(calls$model, if (inherits(calls, "guide_calls")) rule_words(calls$params))

# Bins of whole numbers, (low, high]: single ones up to 5, then wider and wider, so that each is about as wide on a log scale.
umi_bins <- function(most) {
  high <- c(0:5, unique(round(5 * 1.25^(1:200))))
  high <- unique(high)
  high <- high[seq_len(which(high >= max(most, 5))[1L])]
  data.frame(low = c(-1, utils::head(high, -1L)), high = high)
}

bin_of <- function(umi, bins) findInterval(umi, bins$low + 0.5)

# A scale of log(1 + x), on which 0 has a place and bars a foot.
scale_log1p <- function(axis, name, limits = NULL, expand = NULL) {
  across <- axis == "x"
  scale <- if (across) ggplot2::scale_x_continuous else ggplot2::scale_y_continuous
  # Upwards, the label of 1 is so near to that of 0 that both fit only where there is not much more.
  breaks <- function(range) {
    powers <- 10^(0:9)
    if (across) sort(
      c(0, powers, if (range[2L] > 50) 3 * powers else c(2 * powers, 5 * powers))
    ) else c(0, powers[if (range[2L] > 200) -1L else TRUE])
  }
  arguments <- c(list(name = name, breaks = breaks, labels = big_labels, limits = limits), transformed("log1p"))
  if (!is.null(expand)) arguments$expand <- expand
  do.call(scale, arguments)
}

# ggplot2 3.5 renamed the argument.
transformed <- function(how) {
  stats::setNames(list(how), if ("transform" %in% names(formals(ggplot2::continuous_scale))) "transform" else "trans")
}

scale_log10 <- function(axis, name, ...) {
  scale <- if (axis == "x") ggplot2::scale_x_log10 else ggplot2::scale_y_log10
  breaks <- function(range) {
    powers <- 10^(-9:9)
    breaks <- if (diff(log10(range)) > 2.5) powers else sort(c(powers, 2 * powers, 5 * powers))
    # A narrow range may lie between two of them.
    if (sum(breaks >= range[1L] & breaks <= range[2L]) >= 2L) breaks else pretty(range, 4L)
  }
  scale(name = name, labels = big_labels, breaks = breaks, ...)
}

big_labels <- function(x) {
  ifelse(is.na(x), NA, vapply(x, format, "", big.mark = ",", trim = TRUE, drop0trailing = TRUE, scientific = FALSE))
}

# Bars with a foot at 0 of the log1p scale; on a log scale stacks lie, so that bars are drawn one before the other.
umi_bars <- function(data, ...) {
  ggplot2::geom_rect(
    ggplot2::aes(
      xmin = .data$low + 0.55, xmax = .data$high + 0.45, ymin = 0, ymax = .data$cells, fill = .data$what
    ),
    data, ...
  )
}

# Names for axes, strips and labels: long ones are cut in the middle, where they rarely differ.
short_name <- function(x, most = 28L) {
  long <- nchar(x) > most
  side <- (most - 1L) %/% 2L
  x[long] <- paste0(substring(x[long], 1L, side), "\u2026", substring(x[long], nchar(x[long]) - side + 1L))
  x
}
