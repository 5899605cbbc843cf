/* test_metrics.c - metrics against numbers recorded from scikit-learn 1.9.1 (zero_division=0, average over the classes that occur). */
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"

enum { ROOM = 300 * 700 };
static float   S[ROOM];
static int64_t Y[500];

static void make(int n, int classes, int gap)            /* the same formulas as on scikit-learn's side */
{
    for (int i = 0; i < n; i++) {
        for (int c = 0; c < classes; c++) S[i * classes + c] = (float)(((int64_t)i * 3701 + c * 1013 + (int64_t)i * c * 131) % 9973) / 1024.0f - 5;
        Y[i] = i % 3 != 1 ? nn__argmax(S + i * classes, classes) : (i * i * 7 + i * 3 + 1) % classes;
        if (gap && (Y[i] == 2 || Y[i] == 5)) Y[i] = 0;
    }
}

typedef struct expected { double accuracy, top5, precision, recall, f1, micro, weighted, auc; double c3[3]; int64_t support3; } expected;
static void compare(int n, int classes, int gap, const expected *e)
{
    static nn_report r;
    int last = classes > 3 ? 3 : classes - 1;
    make(n, classes, gap);
    nn_report_classes(&r, n, classes, S, Y);
    CHECK(r.count == n && r.classes == classes);
    CHECK_NEAR(r.accuracy, e->accuracy, 1e-12);
    CHECK_NEAR(r.top5, e->top5, 1e-12);
    CHECK_NEAR(r.macro_precision, e->precision, 1e-12);
    CHECK_NEAR(r.macro_recall, e->recall, 1e-12);
    CHECK_NEAR(r.macro_f1, e->f1, 1e-12);
    CHECK_NEAR(r.micro_f1, e->micro, 1e-12);
    CHECK_NEAR(r.weighted_f1, e->weighted, 1e-12);
    CHECK_NEAR(r.auc, e->auc, 1e-12);
    CHECK_NEAR(r.precision[last], e->c3[0], 1e-12);
    CHECK_NEAR(r.recall[last], e->c3[1], 1e-12);
    CHECK_NEAR(r.f1[last], e->c3[2], 1e-12);
    CHECK(r.support[last] == e->support3);
    CHECK(isnan(r.mse) && isnan(r.mae) && isnan(r.r2) && isnan(r.loss));
}

TEST(three_classes)
{
    expected e = { 0.875, NAN, 0.833333333333333, 0.933333333333333, 0.867102396514161, 0.875, 0.877450980392157, 0.930692956349206,
                   { 1, 0.8, 0.888888888888889 }, 25 };
    compare(40, 3, 0, &e);
}
TEST(ten_classes)
{
    expected e = { 0.69, 0.81, 0.698620268620269, 0.818173639226271, 0.714307126764134, 0.69, 0.653215591353214, 0.889167097797907,
                   { 0.7, 0.538461538461538, 0.608695652173913 }, 13 };
    static nn_report r;
    compare(100, 10, 0, &e);
    nn_report_classes(&r, 100, 10, S, Y);
    CHECK(r.confusion[3][0] == 1 && r.confusion[3][1] == 1 && r.confusion[3][3] == 7 && r.confusion[3][4] == 2 && r.confusion[3][9] == 2);
}
TEST(classes_without_labels_count_as_zero)
{
    expected e = { 0.6, 0.77, 0.597687867687868, 0.624076417004048, 0.576055547062486, 0.6, 0.623863757596455, 0.871715721457185,
                   { 0.7, 0.538461538461538, 0.608695652173913 }, 13 };
    static nn_report r;
    compare(100, 10, 1, &e);
    nn_report_classes(&r, 100, 10, S, Y);
    CHECK(r.support[2] == 0 && r.precision[2] == 0 && r.recall[2] == 0 && r.f1[2] == 0);
}
TEST(two_classes)
{
    expected e = { 0.86, NAN, 0.840909090909091, 0.9, 0.84984984984985, 0.86, 0.865465465465466, 0.893333333333333, { 1, 0.8, 0.888888888888889 }, 35 };
    compare(50, 2, 0, &e);
}
TEST(a_hundred_classes)
{
    expected e = { 0.67, 0.676, 0.655872302300874, 0.819196607784148, 0.689089377207748, 0.67, 0.623248757605596, 0.910717526903355,
                   { 0.666666666666667, 1, 0.8 }, 4 };
    compare(500, 100, 0, &e);
}
TEST(more_classes_than_one_pass_counts)
{
    expected e = { 0.666666666666667, 0.67, 0.541802388707926, 0.549674267100977, 0.534930975647588, 0.666666666666667, 0.663095238095238, 0.846463191569664,
                   { 1, 1, 1 }, 1 };
    compare(300, 700, 0, &e);
}

TEST(probabilities_and_logits_have_the_same_auc)
{
    static float p[100 * 10];
    static nn_report a, b;
    make(100, 10, 0);
    for (int i = 0; i < 100; i++) {
        double sum = 0;
        for (int c = 0; c < 10; c++) sum += exp((double)S[i * 10 + c]);
        for (int c = 0; c < 10; c++) p[i * 10 + c] = (float)(exp((double)S[i * 10 + c]) / sum);
    }
    nn_report_classes(&a, 100, 10, S, Y);
    nn_report_classes(&b, 100, 10, p, Y);
    CHECK_NEAR(a.auc, b.auc, 1e-6);
    CHECK(a.accuracy == b.accuracy);
}

TEST(auc_with_ties)
{
    float s[60];
    int64_t y[60];
    for (int i = 0; i < 60; i++) { s[i] = (float)(i * 29 % 17) / 4; y[i] = (i * i + 3 * i) % 7 < 3; }
    CHECK_NEAR(nn_auc(60, s, y), 0.724350205198358, 1e-12);
}

TEST(auc_by_hand)
{
    float s[] = { 1, 2, 3, 4 }, same[] = { 5, 5, 5, 5 }, zero[] = { -0.0f, 0.0f }, inf[] = { -INFINITY, 0, 1, INFINITY }, bad[] = { 1, NAN, 2, 3 };
    int64_t up[] = { 0, 0, 1, 1 }, down[] = { 1, 1, 0, 0 }, one[] = { 1, 1, 1, 1 }, mixed[] = { 0, 1 }, ignore[] = { 0, -100, 1, 7 };
    CHECK(nn_auc(4, s, up) == 1 && nn_auc(4, s, down) == 0 && nn_auc(4, same, up) == 0.5);
    CHECK(nn_auc(2, zero, mixed) == 0.5 && nn_auc(4, inf, up) == 1);
    CHECK(isnan(nn_auc(4, s, one)) && isnan(nn_auc(4, bad, up)) && isnan(nn_auc(0, s, up)) && isnan(nn_auc(4, NULL, up)));
    CHECK(nn_auc(4, s, ignore) == 1);
}

TEST(heapsort_sorts)
{
    uint64_t k[257];
    nn__order o = { k, nn__key_less, nn__key_swap };
    for (int n = 0; n < 257; n += 1 + n / 8) {
        int ok = 1;
        for (int i = 0; i < n; i++) k[i] = (uint64_t)(i * 7919 % 31);
        nn__sort(&o, n);
        for (int i = 1; i < n; i++) ok &= k[i - 1] <= k[i];
        CHECK(ok);
    }
}

TEST(keys_keep_the_order_of_scores)
{
    double v[] = { -INFINITY, -1e300, -2, -1, -1e-300, 0, 1e-300, 1, 1.5, 1e300, INFINITY };
    for (int i = 1; i < 11; i++) CHECK(nn__auc_key(v[i - 1], 1) < nn__auc_key(v[i], 0));
    CHECK(nn__auc_key(-0.0, 0) == nn__auc_key(0.0, 0));
}

static void values(float *p, float *t, int constant)
{
    for (int i = 0; i < 30; i++) for (int j = 0; j < 3; j++) {
        t[i * 3 + j] = (float)((i * 11 + j * 5) % 23) / 4 - 2;
        p[i * 3 + j] = t[i * 3 + j] + (float)((i * 3 + j) % 5 - 2) / 8;
        if (constant && j == 1) t[i * 3 + 1] = 1.5f;
        if (constant == 2 && j == 1) p[i * 3 + 1] = 1.5f;
    }
}
TEST(regression)
{
    float p[90], t[90];
    static nn_report r;
    values(p, t, 0);
    nn_report_values(&r, 30, 3, p, t);
    CHECK_NEAR(r.mse, 0.03125, 1e-12); CHECK_NEAR(r.mae, 0.15, 1e-12); CHECK_NEAR(r.r2, 0.98869018480329, 1e-12);
    CHECK(r.count == 30 && isnan(r.accuracy) && isnan(r.f1[0]));
    values(p, t, 1);                                     /* a target that is the same everywhere */
    nn_report_values(&r, 30, 3, p, t);
    CHECK_NEAR(r.mse, 1.20694444444444, 1e-12); CHECK_NEAR(r.mae, 0.625, 1e-12); CHECK_NEAR(r.r2, 0.659259442790594, 1e-12);
    values(p, t, 2);
    nn_report_values(&r, 30, 3, p, t);
    CHECK_NEAR(r.r2, 0.992592776123927, 1e-12);
    nn_report_values(&r, 1, 3, p, t);
    CHECK(isnan(r.r2) && r.mse >= 0);
    nn_report_values(&r, 0, 3, p, t);
    CHECK(isnan(r.mse) && isnan(r.mae) && r.count == 0);
    nn_report_values(NULL, 1, 1, p, t);
}

TEST(edges)
{
    static nn_report r;
    float s[] = { NAN, 1, NAN, NAN, 3, 2 }, one[] = { 1, 2 };
    int64_t y[] = { 1, 0, 0 }, out[] = { -100, 7, 9 };
    nn_report_classes(&r, 0, 2, s, y);
    CHECK(isnan(r.accuracy) && isnan(r.auc) && isnan(r.precision[0]) && r.count == 0);
    nn_report_classes(&r, 3, 2, s, y);                   /* NaN never wins, and an AUC with NaN is NaN */
    CHECK(r.accuracy == 1 && isnan(r.auc));
    nn_report_classes(&r, 3, 2, s, out);                 /* nothing is left */
    CHECK(r.count == 0 && isnan(r.accuracy));
    y[1] = -100;
    nn_report_classes(&r, 3, 2, s, y);
    CHECK(r.count == 2);
    nn_report_classes(&r, 2, 1, one, y + 1);
    CHECK(r.count == 1 && r.accuracy == 1 && isnan(r.auc));
    nn_report_classes(&r, 3, 2, NULL, y);
    nn_report_classes(NULL, 3, 2, s, y);
    CHECK(isnan(r.accuracy));
}

static char   printed[65536];
static void   keep_text(void *user, const char *text) { (void)user; strncat(printed, text, sizeof printed - strlen(printed) - 1); }
TEST(printing)
{
    static nn_report r;
    nn_desc d = { .log = keep_text, .on_error = test_quiet };
    nn_context *nn = nn_new(&d);
    make(40, 3, 0);
    nn_report_classes(&r, 40, 3, S, Y);
    strcpy(r.names[0], "cat"); strcpy(r.names[1], "dog"); strcpy(r.names[2], "a long name 123");
    r.loss = 0.25;
    printed[0] = 0;
    nn_report_print(nn, &r);
    CHECK_TEXT(printed, "accuracy          0.875\n");
    CHECK_TEXT(printed, "loss              0.25\n");
    CHECK_TEXT(printed, "a long name 123    1.0000    0.8000    0.8889        25\n");
    CHECK_TEXT(printed, "             cat      8      .      .\n");
    CHECK_TEXT(printed, " a long name 123      2      3     20\n");
    CHECK(!strstr(printed, "mse") && !strstr(printed, "nan"));
    if (getenv("NN_SHOW")) puts(printed);
    make(500, 100, 0);
    nn_report_classes(&r, 500, 100, S, Y);
    printed[0] = 0;
    nn_report_print(nn, &r);
    CHECK_TEXT(printed, "(the first 64 of 100 classes)");
    CHECK_TEXT(printed, "most confused");
    if (getenv("NN_SHOW")) puts(printed);
    values(S, S + 100, 0);
    nn_report_values(&r, 30, 3, S, S + 100);
    printed[0] = 0;
    nn_report_print(nn, &r);
    CHECK_TEXT(printed, "r2                0.98869\n");
    CHECK(!strstr(printed, "class"));
    nn_report_print(nn, NULL);
    nn_report_print(NULL, NULL);
    nn_free(nn);
}

TEST(accuracy_of_a_batch)
{
    nn_desc d = { .on_error = test_quiet };
    nn_context *nn = nn_new(&d);
    float s[] = { 1, 2, 3,  9, 8, 7,  0, 5, 5,  1, 0, 0 };
    int64_t y[] = { 2, 0, 2, -100 };
    nn_tensor *x, *labels, *by_class;
    nn_begin(nn, NN_EVAL);
    x = nn_from(nn, NN_SHAPE(4, 3), s);
    labels = nn_from_as(nn, NN_I64, NN_SHAPE(4), y);
    CHECK_NEAR(nn_accuracy(x, labels), 2.0 / 3, 1e-15);  /* the first of equals wins; the ignored one does not count */
    by_class = nn_transpose(nn_contiguous(nn_transpose(x, 0, 1)), 0, 1);
    CHECK_NEAR(nn_accuracy(by_class, labels), 2.0 / 3, 1e-15);
    CHECK_NEAR(nn_accuracy(x, nn_from(nn, NN_SHAPE(4, 1), (float[]){ 2, 0, 1, 0 })), 1, 0);
    CHECK(nn_ok(nn));
    CHECK(isnan(nn_accuracy(labels, x)) && !nn_ok(nn));
    CHECK_TEXT(nn_error(nn), "nn_accuracy: scores (B, C) and labels (B) are wanted, not (4) and (4, 3)");
    CHECK(isnan(nn_accuracy(x, labels)));                /* after an error */
    nn_clear(nn);
    CHECK(isnan(nn_accuracy(x, NULL)) && isnan(nn_accuracy(NULL, labels)));
    nn_free(nn);
}
