"""Yes and no in the languages of benchmarks and models.

`FIRM` words mean what they say wherever they open an answer ("Oui il y en a un"); `ALONE` words mean something else too, so they
count only as a clause of their own ("Si, hay uno"). Languages that write without blanks, and short sentences without the word
("Il n'y a pas de chat"), have patterns for how an answer starts or what it holds. "No" is English, Spanish and Italian alike;
the Polish "no" is not read as its yes.
"""

from __future__ import annotations

import re

FIRM = {
    "yes": "oui sí sì sim jawohl да так-точно نعم أجل بلى हाँ हां हा̃ evet có vâng igen ναι כן بله হ্যাঁ kyllä iya tak",
    "no": "non nein não nao нет لا नहीं नही hayır không nie nee neen nej nei όχι לא خیر না tidak bukan hayir",
}
ALONE = {
    "yes": "si ja da ya jo ano так oo vero verdadero verdadeiro verdade vrai wahr richtig exact "
    "exacto certo stimmt correcto"
    " correto corretto правда верно правильно صحيح सही đúng benar doğru ada var cierto "
    "giusto doch ouais claro klar prawda waar juist"
    " tačno sant adevărat betul phải có वाकई",
    "no": "нi ні нет ne ei nu hindi falso falsch faux неверно неправда неправильно خطأ गलत sai "
    "salah yanlış yok değil fałsz onwaar"
    " incorrecto incorreto sbagliato chưa neniu",
}
# how an answer starts (or is, with $), by language; the first that fits decides, and a hedge comes before both
STARTS = {
    "unknown": (
        r"不(?:确定|知道|清楚|好说|能确定|太清楚|太确定)|无法|無法|难以|難以|可能|也许|或许|"
        r"有可能|看不清|是否|有没有|是不是|未知",
        r"(?:よく)?(?:わかりません|分かりません|わからない|分からない)|不明|判断できません|"
        r"判別できません|たぶん|おそらく|かもしれ",
        r"모르|알 수 없|잘 모르|확실하지|불확실|불분명|아마",
        r"je ne (?:sais|peux) pas|je suis pas sûr|peut-être|impossible de|ich wei(?:ß|"
        r"ss) (?:es )?nicht|ich bin (?:mir )?nicht sicher|vielleicht",
        r"no (?:lo )?s[ée](?! )|no estoy segur|no puedo|no se puede|no es posible|no est[áa] clar|"
        r"quiz[áa]s?|tal vez|puede ser|n[ãa]o (?:sei|consigo|tenho certeza|é possível|posso|"
        r"está claro)|talvez",
        r"non (?:lo )?so\b|non (?:posso|riesco|è possibile|sono sicur|è chiaro)|forse|не (?:знаю|"
        r"могу|уверен|ясно)|возможно|может быть|невозможно",
        r"لا (?:أعرف|أعلم|أستطيع|يمكن|أدري)|ربما|पता नहीं|शायद|मुझे नहीं पता|không (?:biết|rõ|"
        r"chắc|thể)|có (?:thể|lẽ)|tidak (?:tahu|yakin|bisa|dapat|jelas)|mungkin",
        r"bilmiyorum|belki|emin değil|ไม่(?:ทราบ|แน่ใจ|รู้|สามารถ|ชัด)|อาจ|nie (?:wiem|jestem pew|"
        r"mogę|można)|może|(?:ik )?weet (?:ik )?(?:het )?niet|misschien",
    ),
    "no": (
        r"(?:不是|不|没有|没(?!错)|沒有|沒(?!錯)|否|无(?!疑)|無|非|错误|错|錯|并没|并不|並沒|未|假)",
        r"(?:いいえ|いえ|ううん|違います|ちがいます|いません|ありません|いない|ない|偽)",
        r"(?:아니요|아니오|아뇨|아니|없습니다|없어요|없다|틀렸|거짓)",
        r"(?:ไม่ใช่|ไม่มี|ไม่|เปล่า)",
        r"bien s[ûu]r que non|claro que n(?:o|ão)|por supuesto que no|natürlich nicht|"
        r"конечно,? нет|tentu(?: saja)? tidak",
        r"(?:जी )?नहीं|il n['’]y (?:en )?a (?:pas|aucun)|es gibt (?:hier )?kein|n[ãa]o (?:há|tem|"
        r"existe|vejo)|non (?:c['’]è|ci sono|vedo)",
        r"لا يوجد|не видно|tidak ada|không có|nie ma\b|er (?:is|zijn|staat) geen",
    ),
    "yes": (
        r"(?:是的|是(?!哪|什|谁|個|个|一|[A-Z])|有(?!点|些|人说)|对(?!比|于|面|应)|對(?!比|於)|"
        r"存在|正确|正確|嗯|没错|沒錯|真|当然|當然|确实)",
        r"(?:はい|ええ|うん|そうです|その通り|います|あります|ある|いる|正しい|真)",
        r"(?:네|예|응|맞습니다|맞아요|있습니다|있어요|있다|그렇습니다|참)(?=$|[\s,.])",
        r"(?:ใช่|มี|ครับ|ค่ะ|จริง|ถูกต้อง)",
        r"जी हाँ|जी हां|il y (?:en )?a\b|c['’]est (?:vrai|exact|correct)|es gibt\b|das stimmt|"
        r"hay\b|há\b|existe\b|c['’]è\b|ci sono\b|نعم|يوجد",
        r"đúng\b|vâng\b|phải\b|jest\b|ada\b|tentu|bien s[ûu]r|natürlich|por supuesto|"
        r"claro que s[íi]|конечно|er is een|er zijn|c['’]est le cas",
    ),
}
# what a clause holds anywhere, in scripts without blanks and short sentences
HOLDS = {
    "no": (
        r"没有|沒有|不存在|并不|看不到|不在|不包含",
        r"(?:い|あり|見え)ません|がない|はない|ではない|いない",
        r"없습니다|없어요|보이지 않|없다|아닙니다",
        r"ไม่มี|ไม่ใช่|ไม่เห็น",
        r"\bn['’]y a (?:pas|aucun)|\bne (?:voit|vois) (?:pas|aucun)|\bkeinen?\b|\bkeine\b|"
        r"\bno hay\b|\bno (?:se ve|aparece)|\bn[ãa]o (?:há|tem|existe)\b",
        r"\bnon (?:c['’]è|ci sono)\b|(?<!\w)нет(?!\w)|(?<!\w)не (?:видно|изображ)|لا يوجد|"
        r"नहीं (?:है|हैं|दिख)|không có\b|tidak ada\b|\byok(?:tur)?\b|\bnie ma\b|\bgeen\b",
    ),
    "yes": (
        r"有(?!没有|沒有|可能)|存在",
        r"(?:い|あり|見え)ます",
        r"있습니다|있어요|보입니다|맞습니다",
        r"มี|เห็น",
        r"\bil y a\b|\bes gibt\b|\bhay\b|\bhá\b|\bc['’]è\b|\bci sono\b|(?<!\w)есть(?!\w)|"
        r"(?<!\w)يوجد|\bvar(?:dır)?$|\bcó một\b",
    ),
}
# "yes or no", said as a question or a heading
_YES_WORDS = "yes|oui|ja|s[íi]|sim|sì|да|نعم|हाँ|हां|có|ya|iya|evet|tak|true|是的?|有|对|はい|네|예|ใช่"
_NO_WORDS = "no|non|nein|n[ãa]o|нет|لا|नहीं|không|tidak|hay[ıi]r|nie|nee|false|否|不是|没有|不|いいえ|아니[요오]|ไม่ใช่|ไม่"
_JOINT = (
    r"\s*(?:/|\||\bor\b|\bou\b|\boder\b|\bo\b|\be\b|или|أم|أو|या|hoặc|hay|\batau\b|veya|lub|"
    r"czy|\bof\b|或者?|还是|か|또는|หรือ)\s*"
)
ASKED = re.compile(
    rf"[(\[]\s*(?:(?:{_YES_WORDS}){_JOINT}(?:{_NO_WORDS})|no\s*(?:/|or)\s*yes)\s*[)\]]|"
    rf"(?<!\w)(?:{_YES_WORDS}){_JOINT}(?:{_NO_WORDS})\s*(?:\?|(?<=no|ue|se):|[-=]>|→)"
    r"|(?:(?<=[.?!] )|^)(?:please )?(?:answer|respond|reply)\b[^.?!]{0,60}\byes\s?(?:or|/)\s?no\b\s?[.:]?",
    re.I,
)


BOTH = re.compile(
    rf"(?<!\w)(?:{_YES_WORDS}){_JOINT}(?:{_NO_WORDS})(?!\w)|"
    rf"(?<!\w)(?:{_YES_WORDS})\s+(?:et|y|und|e|и|dan|ve|en|và|i|a)\s+(?:{_NO_WORDS})(?!\w)|"
    rf"(?:是|有|对)(?:又|也|和)(?:不是|没有|不对)",
    re.I,
)


def _words(texts: dict[str, str]) -> dict[str, str]:
    return {word: meaning for meaning, text in texts.items() for word in text.split()}


def _pattern(forms: tuple[str, ...], start: bool) -> re.Pattern[str]:
    return re.compile(("^" if start else "") + "(?:" + "|".join(f"(?:{f})" for f in forms) + ")")


_FIRM, _ALONE = _words(FIRM), _words(ALONE)
_STARTS = {meaning: _pattern(forms, True) for meaning, forms in STARTS.items()}
_HOLDS = {meaning: _pattern(forms, False) for meaning, forms in HOLDS.items()}


def meant(clause: str) -> str | None:
    """ "yes" or "no" where a clause in lower case says it in another language; "" where it says that it is unknown."""
    clause = clause.strip(" .,;:!?\"'()[]-。、")
    if _STARTS["unknown"].match(clause):
        return ""
    if clause in _ALONE:
        return _ALONE[clause]
    first = re.match(r"[^\s,.;:!?]+", clause)
    for meaning in ("no", "yes"):
        if _STARTS[meaning].match(clause):
            return meaning
    if first and first[0] in _FIRM:
        return _FIRM[first[0]]
    return None


def exactly(clause: str) -> str | None:
    """The same for a clause that says nothing else."""
    for meaning in ("no", "yes"):
        if _STARTS[meaning].fullmatch(clause):
            return meaning
    return _FIRM.get(clause) or _ALONE.get(clause)


def held(sentence: str) -> str | None:
    """What a sentence in another language states about there being something."""
    sentence = sentence.strip(" .,;:!?\"'")
    if _STARTS["unknown"].search(sentence):
        return ""
    return next((meaning for meaning in ("no", "yes") if _HOLDS[meaning].search(sentence)), None)
