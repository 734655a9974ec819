"""Words of other languages: cues of answers as English ones, and the words for yes and no.

`in_english` puts English cues in the place of others, so that the rules of letters and numbers need know one language. A
letter or digit that is glued to a script without spaces is set apart before.
"""

from __future__ import annotations

import re

# scripts whose words are glued to Latin letters: Greek to Thai, Hangul, kana, Han
_FOREIGN = r"\u0400-\u052f\u0590-\u0e7f\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af"
_GLUED = re.compile(rf"(?<=[{_FOREIGN}])(?=[A-Za-z0-9(\[])|(?<=[A-Za-z0-9)\]%.,:;!?])(?=[{_FOREIGN}])")
_IS_FOREIGN = re.compile(rf"[{_FOREIGN}]")

_HAN = (
    ("(?:都|均)?(?:是|为)?(?:不正确|不对|错误|错)(?:的|了)?(?:选项|答案)?", " is wrong "),
    ("不是|并非|而非|不选|不能选|不应选|排除(?:了)?(?:选项)?", " not "),
    ("而是|就是|应该是|应当是|应该选|我认为是|我觉得是|认为是", ". answer: "),
    (
        "(?:都|均)?(?:是|为)?(?:唯一|最)?(?:正确|对)(?:的)?(?:选项|答案|选择)(?!\\s*[是为:])|"
        "(?:都|均)?是(?:正确|对)的|(?<=[A-Z] )正确(?!的?(?:答案|选项))"
        "|符合(?:题意|描述|图片|图中)",
        " is correct ",
    ),
    (
        "(?:我的)?(?:最终|最后|正确|最佳|最合适)?(?:的)?(?:答案|选择|选项|解答|回答)\\s*(?:应该|"
        "应当|就)?\\s*(?:是|为|选择?|:)\\s*:?\\s*(?:选项)?",
        " answer: ",
    ),
    ("(?:最终|最后|正确|最佳)(?:的)?(?:答案|选项)", " the correct answer is "),
    ("答案", " answer "),
    ("(?:我|故|应|因此|所以|则)?(?:会|应该|要)?选择?(?:项)?(?=\\s*[(\\[]?[A-Z](?!\\w))(?:了)?", " answer: "),
    ("选项", " option "),
    ("所以|因此|故|综上(?:所述)?|于是", " therefore "),
    ("或者|或是|还是|或", " or "),
    ("(?<=[A-Z)]) ?[和与及] ?(?=[(A-Z])", " and "),
)
_KANA = (
    ("(?:では|じゃ)(?:なく|ない|ありません)(?:て)?(?:、)?", " is not right. answer: "),
    ("(?:が|は)?(?:誤り|間違い|不正解|不適切)", " is wrong "),
    ("(?:最終的な|正しい)?(?:正解|答え|解答|回答|正答)(?:の選択肢)?\\s*(?:は|:|が)\\s*:?", " answer: "),
    ("(?:が|は)\\s*(?:正解|正しい|正答|適切|最適)", " is correct "),
    ("選択肢|オプション", " option "),
    ("したがって|よって|だから", " therefore "),
    ("または|もしくは|あるいは", " or "),
    ("(?<=[A-Z]) ?と ?(?=[A-Z])", " and "),
    ("です|である|だと思います|になります|を選びます", " "),
)
_HANGUL = (
    ("(?:이|가|은|는)?\\s*아니라|(?:이|가)?\\s*아니고", " is not right. answer: "),
    ("(?:이|가|은|는)?\\s*(?:틀렸|틀린|오답|잘못|아닙|아니)\\w*", " is wrong "),
    ("(?:최종\\s*|올바른\\s*|맞는\\s*)?(?:정답|답변|답|대답)\\s*(?:은|는|이|:|-)\\s*:?", " answer: "),
    (
        "(?:이|가|은|는)\\s*(?:정답|맞|옳|올바|적절)\\w*|(?:이|가)\\s*답\\w*|(?:을|를)\\s*(?:선택|고르|고릅|골)\\w*",
        " is correct ",
    ),
    ("선택지|옵션|보기", " option "),
    ("따라서|그러므로|그래서", " therefore "),
    ("또는|혹은|이나", " or "),
    ("(?<=[A-Z]) ?(?:와|과) ?(?=[A-Z])", " and "),
    ("(?:번)?\\s*(?:입니다|이에요|예요|이다|번)", " "),
)
_OTHERS = (
    # Russian and Ukrainian; letters of their own alphabet stand for the option in that place
    (
        "(?:правильный |верный |правильна )?(?:ответ|відповідь)\\s*(?:[-:]|это|является|будет|—)*\\s*(?:вариант\\s*)?",
        " answer: ",
    ),
    ("вариант|варіант|опция|буква", " option "),
    ("(?:является )?(?:правильн|верн)\\w*(?: ответ\\w*)?", " is correct "),
    ("(?:неправильн|неверн|ошибочн)\\w*", " is wrong "),
    ("следовательно|поэтому|значит", " therefore "),
    (" или ", " or "),
    ("(?:ال)?(?:إجابة|جواب|اجابة)\\s*(?:الصحيحة|الصحيح|النهائية)?\\s*(?:هي|هو|:)?\\s*:?\\s*(?:الخيار)?", " answer: "),
    ("الخيار", " option "),
    ("(?:هو|هي)?\\s*(?:الصحيح|الصحيحة|صحيح)", " is correct "),
    (" أو ", " or "),
    ("(?:सही )?(?:उत्तर|जवाब)\\s*(?:है|:)?\\s*:?\\s*(?:विकल्प)?", " answer: "),
    ("विकल्प", " option "),
    ("सही है", " is correct "),
    ("(?:คำตอบ(?:ที่ถูกต้อง|ที่ถูก|สุดท้าย)?)\\s*(?:คือ|เป็น|:)?\\s*(?:ข้อ|ตัวเลือก)?", " answer: "),
    ("(?:ตอบ|เลือก)\\s*(?:ข้อ)?", " answer: "),
    ("ข้อ|ตัวเลือก", " option "),
    ("หรือ", " or "),
    ("ถูกต้อง", " is correct "),
    ("(?:ה)?תשובה\\s*(?:הנכונה)?\\s*(?:היא|:)?", " answer: "),
    ("(?:η )?(?:σωστή )?απάντηση\\s*(?:είναι|:)", " answer: "),
)
_LATIN = (
    (r"\b(?:nicht|pas|niet|não|nie)(?= \(?[A-Z]\b)", "not"),
    (r"(?<=[A-Z]), (?:sondern|mais|sino|ma|mas|maar)(?= \(?[A-Z]\b)", ", but"),
    # French
    (
        r"\b(?:la )?(?:bonne |meilleure )?r[ée]ponse (?:correcte |finale |exacte |juste )?(?:est|"
        r"serait|:)(?: donc| bien)?(?: l['’]option| la lettre| la)?(?! pas)",
        "answer: ",
    ),
    (r"\br[ée]ponse\s*:", "answer:"),
    (r"\bl['’]option(?= [A-Z]\b)", "option"),
    (r"\bn['’]est pas\b", "is not"),
    (r"\best (?:la )?(?:bonne r[ée]ponse|r[ée]ponse correcte|correcte?|exacte?|juste|la bonne)\b", "is correct"),
    (r"\best (?:incorrecte?|fausse?|faux)\b", "is wrong"),
    (r"\b(?:je choisis|je choisirais)\b", "I choose"),
    # German
    (
        r"\b(?:die )?(?:richtige |korrekte |beste )?(?:antwort|lösung)(?: ist| lautet| wäre|"
        r":)(?: also| daher)?(?! nicht)(?: option)?",
        "answer: ",
    ),
    (r"\brichtig ist(?: also)?(?: die)?(?: antwort| option)?", "answer: "),
    (r"\bist nicht\b", "is not"),
    (r"\bantwort\b", "option"),
    (r"\bist (?:die )?(?:richtige? ?(?:antwort)?|korrekt|richtig|die richtige)\b", "is correct"),
    (r"\bist falsch\b", "is wrong"),
    # Spanish, Portuguese, Italian
    (
        r"\b(?:la )?respuesta (?:correcta |final |adecuada )?(?:es|sería|:)(?: la| el| opci[óo]n|"
        r" la opci[óo]n| la letra)*(?= )",
        "answer: ",
    ),
    (r"\brespuesta\s*(?:correcta|final)?\s*:", "answer:"),
    (r"\b(?:la )?opci[óo]n correcta es(?: la)?", "answer: "),
    (r"\bopci[óo]n\b", "option"),
    (r"\bno es\b", "is not"),
    (r"\bes (?:la )?(?:respuesta )?(?:correcta|correcto)\b", "is correct"),
    (r"\bes incorrect[ao]\b", "is wrong"),
    (
        r"\b(?:a )?resposta (?:correta |certa |final )?(?:é|seria|:)(?: a| o| opç[ãa]o|"
        r" a opç[ãa]o| letra| a letra| a alternativa)*(?= )",
        "answer: ",
    ),
    (r"\bresposta\s*(?:correta|certa|final)?\s*:", "answer:"),
    (r"\b(?:a )?(?:alternativa|opç[ãa]o) (?:correta|certa) é(?: a)?(?: letra)?", "answer: "),
    (r"\b(?:alternativa|opç[ãa]o|letra|lettera|opzione)(?= \(?[A-Z]\b)", "option"),
    (r"\bnão é\b", "is not"),
    (r"\bé (?:a )?(?:resposta )?(?:correta|certa)\b", "is correct"),
    (r"\bé incorreta\b", "is wrong"),
    (
        r"\b(?:la )?risposta (?:corretta |giusta |esatta |finale )?(?:è|e'|sarebbe|:)(?: la|"
        r" l'opzione| l’opzione)*(?= )",
        "answer: ",
    ),
    (r"\brisposta\s*(?:corretta|giusta|finale)?\s*:", "answer:"),
    (r"\bnon è\b", "is not"),
    (r"\bè (?:la )?(?:risposta )?(?:corretta|giusta|esatta)\b", "is correct"),
    (r"\bè (?:sbagliata|errata)\b", "is wrong"),
    # Vietnamese, Indonesian, Turkish, Polish, Dutch
    (r"\b(?:đáp án|câu trả lời|phương án)(?: đúng| chính xác| cuối cùng)*\s*(?:là|:)\s*:?", "answer: "),
    (r"\bchọn(?: đáp án)?\b", "answer: "),
    (r"\b(?:đáp án|phương án|lựa chọn)\b", "option"),
    (r"\blà (?:đáp án )?đúng\b", "is correct"),
    (r"\bjawaban(?:nya)?(?: yang)?(?: benar| tepat)?(?:nya)?\s*(?:adalah|ialah|:)", "answer: "),
    (r"\bpilihan\b", "option"),
    (r"\badalah jawaban yang benar\b|\bbenar\b(?=\W*$)", "is correct"),
    (r"\bbukan\b", "not"),
    (r"\b(?:doğru )?cevap(?:ı|ım)?\s*:?(?= \(?[A-Z]\b|:|\s*\()", "answer: "),
    (r"\byanıt\s*:?", "answer: "),
    (r"\bşıkkı(?:dır)?\b", " "),
    (r"\bseçenek\b", "option"),
    (r"\b(?:poprawna |prawidłowa )?odpowied[źz]\s*(?:to|:|jest)\s*:?", "answer: "),
    (r"\bopcja\b", "option"),
    (r"\bhet (?:juiste |correcte )?antwoord is\b|\bantwoord\s*:", "answer: "),
    (r"\boptie\b", "option"),
    (r"\bis juist\b", "is correct"),
)
_AND_OR = (
    (r"(?<=[A-Z)]) (?:ou|oder|o|atau|veya|lub|of|hoặc) (?=\(?[A-Z]\b)", " or "),
    (r"(?<=[A-Z)]) (?:et|und|y|e|dan|ve|i|en|và) (?=\(?[A-Z]\b)", " and "),
)
_CYRILLIC = str.maketrans("БбГг", "BBDD")  # the second and the fourth of their alphabet; А, В, С are read by their look


def _compiled(table: tuple[tuple[str, str], ...], flags: int = re.I) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern, flags), form) for pattern, form in table]


_GROUPS = [
    (re.compile("[\u3400-\u9fff]"), _compiled(_HAN, 0)),
    (re.compile("[\u3040-\u30ff]"), _compiled(_KANA, 0)),
    (re.compile("[\uac00-\ud7af]"), _compiled(_HANGUL, 0)),
    (re.compile("[\u0370-\u0e7f]"), _compiled(_OTHERS)),
]
_CUES = _compiled(_LATIN)
_JOINTS = _compiled(_AND_OR, 0)
_HINT = re.compile(
    r"r[ée]ponse|l['’]option|antwort|richtig|lösung|respuesta|opci[óo]n|resposta|alternativa|"
    r"opç|letra|risposta|opzione|lettera"
    r"|đáp án|trả lời|chọn|phương án|jawaban|cevap|yanıt|şık|odpowied|opcja|antwoord|optie|"
    r"\best |\bist |\bes |[éè] |pilihan"
    r"|\bis juist|\b(?:nicht|pas|niet|não|nie|sino) ",
    re.I,
)


def spaced(text: str) -> str:
    """Letters and digits set apart from scripts without spaces."""
    return _GLUED.sub(" ", text) if _IS_FOREIGN.search(text) else text


def in_english(text: str, answers: bool = False) -> str:
    """The text with English cues in the place of those of other languages; all else stays. "
    "`answers`: only "answer"."""
    foreign = bool(_IS_FOREIGN.search(text))
    if foreign:
        text = re.sub(r"(?<!\w)[БбГг](?!\w)", lambda m: m[0].translate(_CYRILLIC), text)
        kana = bool(re.search("[\u3040-\u30ff]", text))
        groups = [*_GROUPS[1:], _GROUPS[0]] if kana else _GROUPS
        for script, cues in groups:
            if script.search(text):
                text = _replaced(text, cues, answers)
    if _HINT.search(text):
        text = _replaced(text, _CUES, answers)
    return _replaced(text, _JOINTS, answers)


def _replaced(text: str, table: list[tuple[re.Pattern[str], str]], answers: bool) -> str:
    for pattern, form in table:
        if not answers or form.strip(" :") == "answer":
            text = pattern.sub(form, text)
    return text
