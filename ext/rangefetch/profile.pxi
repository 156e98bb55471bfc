# Profile: the options, headers and credentials of requests. Jar: the cookies that servers set.

cdef int64_t last_serial = 0    # of the newest Profile


@cython.final
cdef class Jar:
    cdef JarCore core

    def __cinit__(self):
        _must_be_loaded()
        if not jar_open(&self.core):
            raise MemoryError

    def __dealloc__(self):
        jar_close(&self.core)


@cython.final
cdef class Profile:
    cdef ProfileCore core
    cdef Jar jar               # keeps alive the JarCore that the engine borrows

    def __cinit__(
        self, settings, headers, bare_headers, *, bint allow_downgrade=False, double connect_timeout_s=30,
        double read_timeout_s=60, str http_proxy="", str https_proxy="", direct=(),
        str cookie="", Jar jar=None, credentials=(), trusted=(), str reach="allow",
    ):
        global last_serial
        cdef int i = 0
        _must_be_loaded()
        self._keep_secrets(cookie, credentials, trusted)
        self.jar = jar
        if jar is not None:
            self.core.jar = &jar.core
        last_serial += 1
        self.core.serial = last_serial
        self.core.allow_downgrade = allow_downgrade
        self.core.reach = REACHES[reach]
        self.core.connect_timeout_ms = _milliseconds(connect_timeout_s)
        self.core.read_timeout_ms = _milliseconds(read_timeout_s)
        self.core.headers = self._list(headers)
        self.core.bare_headers = self._list(bare_headers)
        settings = list(settings)
        self.core.settings = <Setting *>calloc(<size_t>len(settings) + 1, sizeof(Setting))
        if self.core.settings == NULL:
            raise MemoryError
        for option, value in settings:
            self.core.settings[i].option = option
            self.core.setting_count = i + 1
            if isinstance(value, int):
                self.core.settings[i].number = value
            else:
                self.core.settings[i].text = _owned_text(_encoded(value))
            i += 1
        self._try_settings()
        self.core.http_via = _number_of(http_proxy)
        self.core.https_via = _number_of(https_proxy)
        self.core.direct = self._texts(list(direct), &self.core.direct_count)

    cdef int _keep_secrets(self, str cookie, credentials, trusted) except -1:
        cdef Credential *credential
        if cookie:
            self.core.cookie = _owned_text(_encoded(cookie))
        credentials = list(credentials)
        self.core.credentials = <Credential *>calloc(<size_t>len(credentials) + 1, sizeof(Credential))
        if self.core.credentials == NULL:
            raise MemoryError
        for host, user, password, any_scheme in credentials:
            credential = &self.core.credentials[self.core.credential_count]
            self.core.credential_count += 1
            if host:
                credential.host = _owned_text(_encoded(host))
            credential.user = _owned_text(_encoded(user))
            credential.password = _owned_text(_encoded(password))
            # Given a choice of schemes, libcurl sends its first request without a password.
            credential.schemes = CURLAUTH_BASIC | CURLAUTH_DIGEST if any_scheme else CURLAUTH_BASIC
        self.core.trusted = self._texts(list(trusted), &self.core.trusted_count)
        return 0

    cdef int _try_settings(self) except -1:
        # Try every option now, so that one which this libcurl rejects fails the Profile and not each of its transfers.
        cdef CURL *easy = curl_easy_init()
        cdef CURLcode code = CURLE_OK
        cdef Setting *setting
        cdef int i
        if easy == NULL:
            raise MemoryError
        for i in range(self.core.setting_count):
            setting = &self.core.settings[i]
            if setting.text != NULL:
                code = opt_text(easy, setting.option, setting.text)
            else:
                code = opt_long(easy, setting.option, setting.number)
            if code != CURLE_OK:
                break
        curl_easy_cleanup(easy)
        if code != CURLE_OK:
            raise ValueError(<int>setting.option, (<bytes>curl_easy_strerror(code)).decode())
        return 0

    cdef char **_texts(self, list texts, int *count) except NULL:
        cdef char **copies = <char **>calloc(<size_t>len(texts) + 1, sizeof(char *))
        cdef int made = 0
        if copies == NULL:
            raise MemoryError
        try:
            for text in texts:
                copies[made] = _owned_text(_encoded(text))
                made += 1
        except BaseException:
            _free_texts(copies, made)
            raise
        count[0] = made
        return copies

    cdef curl_slist *_list(self, lines) except? NULL:
        cdef curl_slist *list_ = NULL
        cdef curl_slist *longer
        cdef bytes line
        for line in [_encoded(text) for text in lines]:
            longer = curl_slist_append(list_, line)
            if longer == NULL:
                curl_slist_free_all(list_)
                raise MemoryError
            list_ = longer
        return list_

    def __dealloc__(self):
        cdef int i
        if self.core.headers != NULL:
            curl_slist_free_all(self.core.headers)
        if self.core.bare_headers != NULL:
            curl_slist_free_all(self.core.bare_headers)
        for i in range(self.core.setting_count):
            free(self.core.settings[i].text)
        free(self.core.settings)
        _free_texts(self.core.direct, self.core.direct_count)
        for i in range(self.core.credential_count):
            free(self.core.credentials[i].host)
            free(self.core.credentials[i].user)
            free(self.core.credentials[i].password)
        free(self.core.credentials)
        _free_texts(self.core.trusted, self.core.trusted_count)
        free(self.core.cookie)


cdef int64_t _number_of(str proxy) except? -1:
    cdef bytes text = _encoded(proxy)
    return origin_number(text) if text else 0


cdef int _free_texts(char **texts, int count) noexcept:
    cdef int i
    for i in range(count):
        free(texts[i])
    free(texts)
    return 0
